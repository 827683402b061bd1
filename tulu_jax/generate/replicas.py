"""Several engines, each with the weights on devices of its own, that share the requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from tulu_jax.generate.engine import Engine
from tulu_jax.generate.front import Front
from tulu_jax.generate.jobs import Job, Piece
from tulu_jax.generate.requests import Completion, Prompt, Request, Score
from tulu_jax.generate.scoring import checked_pair
from tulu_jax.generate.stats import Stats, joined

Scope = Callable[[], AbstractContextManager[Any]]
"""Makes the devices of a replica those in force: a mesh with its rules, or one device."""


class Replicas(Front):
    """Engines of one model that work side by side, each in a thread while it has a turn.

    A request goes to whichever has room, and gets the same bits from each. None waits for the
    others' turns to end: one may read a long prompt while the others decode.
    """

    def __init__(self, engines: Sequence[Engine], scopes: Sequence[Scope]) -> None:
        """Takes engines that nobody else uses, and the scope each was made in."""
        first = engines[0]
        self.config, self.max_length = first.config, first.max_length
        self.stop_ids, self.tokenizer = first.stop_ids, first.tokenizer
        self._engines = list(zip(engines, scopes, strict=True))
        self._queue: deque[Job] = deque()
        self._pool = ThreadPoolExecutor(len(engines), "replica")
        self._turns: dict[int, Future[None]] = {}
        """Of the engines that have a turn, by their number: nothing else may use them."""
        self._found: deque[tuple[Job, Callable[[Any], None], Any]] = deque()
        """What is to be told of a job, and to whom."""

    @property
    def stats(self) -> Stats:
        """See `Front`; seconds are the mean of the replicas'."""
        return joined([engine.stats for engine, _ in self._engines])

    @property
    def slots(self) -> int:
        """See `Front`."""
        return sum(engine.slots for engine, _ in self._engines)

    @property
    def busy(self) -> bool:
        """See `Front`."""
        engines = any(engine.busy for engine, _ in self._engines)
        return bool(self._queue or self._turns or self._found) or engines

    @property
    def num_running(self) -> int:
        """See `Front`."""
        return sum(engine.num_running for engine, _ in self._engines)

    def submit(
        self,
        request: Request,
        on_done: Callable[[Completion], None],
        on_piece: Callable[[Piece], None] | None = None,
    ) -> Job:
        """See `Front`."""

        def later(told: Callable[[Any], None]) -> Callable[[Any], None]:
            return lambda found: self._found.append((job, told, found))

        tell = None if on_piece is None else later(on_piece)
        job = self.new_job(request, later(on_done), tell)
        self._queue.append(job)
        return job

    def turn(self, *, read_at_most: int | None = None) -> None:
        """See `Front`; until the first of the replicas that work has had its turn."""
        self._drop_cancelled()
        self._hand_out()
        for number, one in enumerate(self._engines):
            if number not in self._turns and one[0].busy:
                turn = partial(Engine.turn, read_at_most=read_at_most)
                self._turns[number] = self._pool.submit(self._within, one, turn)
        wait(self._turns.values(), return_when=FIRST_COMPLETED)
        ended = [number for number, future in self._turns.items() if future.done()]
        futures = [self._turns.pop(number) for number in ended]
        self._tell()
        for future in futures:
            future.result()

    def _tell(self) -> None:
        while self._found:
            _, told, found = self._found.popleft()
            told(found)

    def _hand_out(self) -> None:
        """Gives engines as many jobs as they have slots, and one to wait for the next slot."""
        free = [one for number, (one, _) in enumerate(self._engines) if number not in self._turns]
        while self._queue and free:
            engine = min(free, key=lambda one: one.num_pending)
            if engine.num_pending > engine.slots:
                return
            engine.enqueue(self._queue.popleft())

    @staticmethod
    def _within(one: tuple[Engine, Scope], work: Callable[[Engine], Any]) -> Any:
        engine, scope = one
        with scope():
            return work(engine)

    def _each(self, work: Callable[[Engine], Any]) -> list[Any]:
        """What `work` gives for each engine, after their turns; no thread is at work then."""
        wait(self._turns.values())
        futures = [self._pool.submit(self._within, one, work) for one in self._engines]
        try:
            return [future.result() for future in futures]
        finally:
            wait(futures)

    def drop(self, jobs: Sequence[Job]) -> None:
        """See `Front`."""
        for job in jobs:
            job.abandon()
        self._drop_cancelled()
        self._each(lambda engine: engine.drop([]))
        ended = self._turns.items()
        self._turns = {
            at: one for at, one in ended if one.exception() and self._engines[at][0].busy
        }
        gone = {*map(id, jobs)}
        self._found = deque(one for one in self._found if id(one[0]) not in gone)

    def abandon(self) -> None:
        """See `Front`."""
        for job in self._queue:
            job.abandon()
        self._queue.clear()
        self._each(lambda engine: engine.abandon())
        self._turns.clear()
        self._found.clear()

    def _drop_cancelled(self) -> None:
        gone = [job for job in self._queue if job.cancelled]
        self._queue = deque(job for job in self._queue if not job.cancelled)
        for job in gone:
            job.finish()

    def score(self, pairs: Sequence[tuple[Prompt, Prompt]]) -> list[Score]:
        """See `Front`; pairs with one prompt go to one replica."""
        prompts: dict[bytes, list[int]] = {}
        size, length = self.config.vocab_size, self.max_length
        for index, (prompt, answer) in enumerate(pairs):
            checked_pair(prompt, answer, f"pair {index}", vocab_size=size, max_length=length)
            prompts.setdefault(np.asarray(prompt).tobytes(), []).append(index)
        shares: list[list[int]] = [[] for _ in self._engines]
        for indices in prompts.values():
            min(shares, key=len).extend(indices)
        by_engine = {id(one[0]): share for one, share in zip(self._engines, shares, strict=True)}

        def work(engine: Engine) -> list[Score]:
            return engine.score([pairs[index] for index in by_engine[id(engine)]])

        scores = self._each(work)
        found = {
            index: score
            for share, some in zip(shares, scores, strict=True)
            for index, score in zip(share, some, strict=True)
        }
        return [found[index] for index in range(len(pairs))]
