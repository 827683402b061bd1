"""The engine: many prompts to tokens and log-probabilities through a fixed number of cache rows.

A row whose request is done is given to the next between two dispatches; a dispatch decodes many
tokens of all rows on the device. Prompts are read in pieces that lie on one grid; pieces that some
row holds already are copied. Every shape is fixed or follows from the request alone, and rows do
not see each other: what a request gets is the same, to the bit, whatever runs beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tulu_jax.errors import DataError
from tulu_jax.generate.front import Front
from tulu_jax.generate.jobs import Job, Piece
from tulu_jax.generate.requests import Completion, Prompt, Request, Score
from tulu_jax.generate.row_table import RowTable
from tulu_jax.generate.scoring import Scorer
from tulu_jax.generate.stats import Stats
from tulu_jax.generate.steps import DISPATCH_TOKENS
from tulu_jax.generate.worker import Worker
from tulu_jax.models import ComputeConfig, ModelConfig
from tulu_jax.ops.attention.cached import BLOCK

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.generate.weights import Weights

SLOTS = 16
CROWDED_TOKENS = 16
"""Tokens of a dispatch while requests wait for a row, or one may end at a stop string."""
PROMPT_TOKENS = 8
"""Likewise where a reader waits for what comes next."""


class Engine(Front):
    """A model ready to continue and to score prompts.

    >>> engine = Engine(config, params)  # doctest: +SKIP
    >>> engine.generate([[1, 403, 407]], max_new_tokens=64)[0].tokens  # doctest: +SKIP
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        *,
        slots: int = SLOTS,
        compute: ComputeConfig | None = None,
        max_length: int | None = None,
        stop_ids: Sequence[int] | None = None,
        tokenizer: Tokenizer | None = None,
        int8: bool = False,
    ) -> None:
        """Takes the weights, rounded once to the compute dtype, and makes the cache.

        Args:
          config: the model.
          params: its weights, host or device arrays, or `(path, array)` pairs as they are read;
            sharded ones keep their sharding; or another engine's `weights`. Under `jax.set_mesh`
            with logical axis rules everything else follows them.
          slots: requests that run side by side, >= 1.
          compute: dtype of activations, cache and weights; float32 by default.
          max_length: longest prompt and continuation; the model's own by default. Rotary positions
            allow a longer one.
          stop_ids: tokens that end a continuation; those of the config by default.
          tokenizer: for stop strings and `Completion.text`.
          int8: whether the matrices of layers are kept in 8 bits, each output with a scale.

        Raises:
          ConfigError: `slots` or `max_length` is impossible for the model or the memory, or 8 bits
            without the package qwix.
        """
        self.config = config
        self.max_length = config.max_length if max_length is None else max_length
        self.stop_ids = tuple(config.stop_ids if stop_ids is None else stop_ids)
        self.tokenizer = tokenizer
        self._stats = Stats()
        self._worker = Worker(
            config, params, slots, self.max_length, compute or ComputeConfig(), self._stats,
            int8=int8,
        )  # fmt: skip
        self._table = RowTable(slots, self._worker.piece)
        self._queue: deque[Job] = deque()
        self._reading: Job | None = None
        self._running: dict[int, Job] = {}

    def score(self, pairs: Sequence[tuple[Prompt, Prompt]]) -> list[Score]:
        """See `Front`."""
        scorer = Scorer(self._worker, self._table, self.max_length, self._wait_for_row)
        return scorer.score(pairs)

    @property
    def weights(self) -> Weights | None:
        """The weights in the engine's own form, for another of the same model; None without."""
        return self._worker.weights

    def _wait_for_row(self) -> None:
        while not self._table.num_free:
            self.turn()

    def load(self, params: Any) -> None:
        """Takes other weights of the same model, and an empty cache; None lets go of both.

        Nothing is compiled again where they lie as before.

        Raises:
          DataError: requests are not done.
        """
        if self.busy:
            raise DataError("weights cannot change while requests run", do="wait for their end")
        self._worker.load(params)
        self._table.forget()

    @property
    def stats(self) -> Stats:
        """See `Front`."""
        return self._stats

    @property
    def slots(self) -> int:
        """See `Front`."""
        return self._worker.slots

    @property
    def busy(self) -> bool:
        """See `Front`."""
        return bool(self._queue or self._reading or self._running)

    @property
    def num_running(self) -> int:
        """See `Front`."""
        return len(self._running) + (self._reading is not None)

    def submit(
        self,
        request: Request,
        on_done: Callable[[Completion], None],
        on_piece: Callable[[Piece], None] | None = None,
    ) -> Job:
        """See `Front`."""
        job = self.new_job(request, on_done, on_piece)
        self.enqueue(job)
        return job

    def enqueue(self, job: Job) -> None:
        """Puts a job into the queue."""
        self._queue.append(job)

    @property
    def num_pending(self) -> int:
        """Requests that are not done, those in the queue too."""
        return self.num_running + len(self._queue)

    def turn(self, *, read_at_most: int | None = None) -> None:
        """See `Front`."""
        self._drop_cancelled()
        self._fill(read_at_most)
        if not self._running:
            return
        alike = self._table.alike(BLOCK, self._worker.blocks)
        made = self._worker.decode(self._num_tokens(), alike)
        for row, job in list(self._running.items()):
            job.add(made.of(row))
            if job.done:
                self._release(job)

    def abandon(self) -> None:
        """See `Front`."""
        reading = [self._reading] if self._reading else []
        self.drop([*self._queue, *reading, *self._running.values()])

    def _num_tokens(self) -> int:
        """Tokens of the next dispatch: few where someone waits for its end."""
        jobs = self._running.values()
        if any(job.streams for job in jobs):
            return PROMPT_TOKENS
        crowded = self._queue or any(job.request.stop_strings for job in jobs)
        most = CROWDED_TOKENS if crowded else DISPATCH_TOKENS
        if self._queue:  # whose row it gets should not stand idle to the dispatch's end
            return min(most, *(job.num_left for job in jobs))
        return most

    def _fill(self, read_at_most: int | None) -> None:
        left = read_at_most
        while self._reading or (self._queue and self._table.num_free):
            job = self._reading = self._reading or self._place(self._queue.popleft())
            while job.num_read < job.to_read.size:
                if left == 0 and self._running:
                    return
                job.num_read += self._read(job)
                left = left and left - 1
            self._table.hold(job.row, job.key, job.tops, job.scored)
            self._running[job.row], self._reading = job, None
            if job.done:
                self._release(job)
            else:
                self._worker.start(job)

    def _place(self, job: Job) -> Job:
        found = self._table.take(job.key, job.tops)
        self._worker.take_over(found, job.to_read)
        job.row, job.num_read, job.scored = found.row, found.num_tokens, [*found.scored]
        return job

    def _read(self, job: Job) -> int:
        """Reads the next piece of a prompt, with its scores if they are wanted; its tokens."""
        if job.tops is None:
            return self._worker.read(job.row, job.to_read, job.num_read)
        targets, tops = job.prompt[1:], min(job.tops, self.config.vocab_size)
        scored = self._worker.score(job.row, job.to_read, targets, job.num_read, tops=tops)
        job.scored.append(scored)
        return scored.logprobs.size

    def _release(self, job: Job) -> None:
        del self._running[job.row]
        self._worker.stop(job.row)
        if not job.all_finite:
            self._worker.clear(job.row)
            self._table.hold(job.row, job.to_read[:0])
        self._table.release(job.row)
        job.finish()

    def drop(self, jobs: Sequence[Job]) -> None:
        """See `Front`."""
        for job in jobs:
            job.abandon()
        self._drop_cancelled()
        if self._worker.restore():
            self._table.forget()

    def _drop_cancelled(self) -> None:
        kept = [job for job in self._queue if not job.cancelled]
        gone = [job for job in self._queue if job.cancelled]
        self._queue = deque(kept)
        if self._reading and self._reading.cancelled:
            gone.append(self._reading)
            self._table.release(self._reading.row)
            self._reading = None
        for job in gone:
            job.finish()
        for job in list(self._running.values()):
            if job.cancelled:
                self._release(job)
