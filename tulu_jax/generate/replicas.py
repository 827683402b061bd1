"""Several engines, each with the weights on devices of its own, that share the requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
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

    A request goes to whichever has room, and gets the same bits from each.
    """

    def __init__(self, engines: Sequence[Engine], scopes: Sequence[Scope]) -> None:
        """Takes engines that nobody else uses, and the scope each was made in."""
        first = engines[0]
        self.config, self.max_length = first.config, first.max_length
        self.stop_ids, self.tokenizer = first.stop_ids, first.tokenizer
        self._engines = list(zip(engines, scopes, strict=True))
        self._queue: deque[Job] = deque()
        self._pool = ThreadPoolExecutor(len(engines), "replica")
        self._telling = threading.Lock()

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
        return bool(self._queue) or any(engine.busy for engine, _ in self._engines)

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
        """See `Front`; nobody is told of two things at once."""
        tell = None if on_piece is None else self._alone(on_piece)
        job = self.new_job(request, self._alone(on_done), tell)
        self._queue.append(job)
        return job

    def _alone(self, told: Callable[[Any], None]) -> Callable[[Any], None]:
        def tell(found: Any) -> None:
            with self._telling:
                told(found)

        return tell

    def turn(self, *, read_at_most: int | None = None) -> None:
        """See `Front`; all replicas take theirs at the same time."""
        self._drop_cancelled()
        self._hand_out()
        working = [one for one in self._engines if one[0].busy]
        self._each(working, lambda engine: engine.turn(read_at_most=read_at_most))

    def _hand_out(self) -> None:
        """Gives every engine as many jobs as it has slots, and one to wait for the next slot."""
        while self._queue:
            engine = min((engine for engine, _ in self._engines), key=lambda one: one.num_pending)
            if engine.num_pending > engine.slots:
                return
            engine.enqueue(self._queue.popleft())

    def _each(
        self, chosen: Sequence[tuple[Engine, Scope]], work: Callable[[Engine], Any]
    ) -> list[Any]:
        """What `work` gives for each engine; returns, or raises, when no thread is at work."""

        def run(engine: Engine, scope: Scope) -> Any:
            with scope():
                return work(engine)

        futures = [self._pool.submit(run, *one) for one in chosen]
        try:
            return [future.result() for future in futures]
        finally:
            wait(futures)

    def drop(self, jobs: Sequence[Job]) -> None:
        """See `Front`."""
        for job in jobs:
            job.abandon()
        self._drop_cancelled()
        self._each(self._engines, lambda engine: engine.drop([]))

    def abandon(self) -> None:
        """See `Front`."""
        for job in self._queue:
            job.abandon()
        self._queue.clear()
        self._each(self._engines, lambda engine: engine.abandon())

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

        scores = self._each(self._engines, work)
        found = {
            index: score
            for share, some in zip(shares, scores, strict=True)
            for index, score in zip(share, some, strict=True)
        }
        return [found[index] for index in range(len(pairs))]
