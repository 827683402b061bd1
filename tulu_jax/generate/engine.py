"""The engine: many prompts to tokens and log-probabilities through a fixed number of cache rows.

A row whose request is done is given to the next between two dispatches; a dispatch decodes many
tokens of all rows on the device. Prompts are read in pieces that lie on one grid; pieces that some
row holds already are copied. Every shape is fixed or follows from the request alone, and rows do
not see each other: what a request gets is the same, to the bit, whatever runs beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu_jax.errors import DataError
from tulu_jax.generate.jobs import Job, Piece
from tulu_jax.generate.requests import Completion, Prompt, Request, Score, check_request
from tulu_jax.generate.row_table import RowTable
from tulu_jax.generate.sample import Sampling
from tulu_jax.generate.scoring import Scorer
from tulu_jax.generate.stats import Stats
from tulu_jax.generate.steps import DISPATCH_TOKENS, MAX_TOPS
from tulu_jax.generate.worker import Worker
from tulu_jax.models import ComputeConfig, ModelConfig

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer

SLOTS = 16
CROWDED_TOKENS = 16
"""Tokens of a dispatch while requests wait for a row, or one may end at a stop string."""
PROMPT_TOKENS = 8
"""Likewise where a reader waits for what comes next."""


class Engine:
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
    ) -> None:
        """Takes the weights, rounded once to the compute dtype, and makes the cache.

        Args:
          config: the model.
          params: its weights, host or device arrays, or `(path, array)` pairs as they are read;
            sharded ones keep their sharding. Under `jax.set_mesh` with logical axis rules
            everything else follows them.
          slots: requests that run side by side, >= 1.
          compute: dtype of activations, cache and weights; float32 by default.
          max_length: longest prompt and continuation; the model's own by default. Rotary positions
            allow a longer one.
          stop_ids: tokens that end a continuation; those of the config by default.
          tokenizer: for stop strings and `Completion.text`.

        Raises:
          ConfigError: `slots` or `max_length` is impossible for the model or the memory.
        """
        self.config = config
        self.max_length = config.max_length if max_length is None else max_length
        self.stop_ids = tuple(config.stop_ids if stop_ids is None else stop_ids)
        self.tokenizer = tokenizer
        self.stats = Stats()
        self._worker = Worker(
            config, params, slots, self.max_length, compute or ComputeConfig(), self.stats
        )
        self._table = RowTable(slots, self._worker.piece)
        self._queue: deque[Job] = deque()
        self._reading: Job | None = None
        self._running: dict[int, Job] = {}

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_ids: Sequence[int] | None = None,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
        n: int = 1,
        logprobs: bool = False,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """`n` continuations of each prompt, those of one prompt side by side, in order.

        Args:
          prompts: token ids of each, BOS included.
          max_new_tokens: most tokens of a continuation, >= 1; fewer where the model's length is
            reached (`Completion.capped`).
          sampling: greedy by default.
          stop_ids: tokens that end a continuation; the engine's own by default.
          stop_strings: texts that end one.
          seed: of the random numbers; continuation i draws from the same stream in any company.
          n: continuations of each prompt, >= 1.
          logprobs: whether `Completion.top_tokens` and `.top_logprobs` are wanted.
          on_done: called with the index and the continuation as soon as one is done.

        Raises:
          DataError: a prompt cannot be continued, or a setting is impossible.
        """
        if n < 1:
            raise DataError("n is impossible", got=n, expected=">= 1")
        requests = [
            Request(
                prompt,
                max_new_tokens,
                sampling or Sampling(),
                seed=seed,
                stream=index * n + sample,
                stop_ids=None if stop_ids is None else tuple(stop_ids),
                stop_strings=tuple(stop_strings),
                tops=MAX_TOPS if logprobs else 0,
            )
            for index, prompt in enumerate(prompts)
            for sample in range(n)
        ]
        names = [f"prompt {index}" for index in range(len(prompts)) for _ in range(n)]
        return self.run(requests, names, on_done=on_done)

    def run(
        self,
        requests: Sequence[Request],
        names: Sequence[str] | None = None,
        *,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """The continuation of every request, in order.

        Args:
          requests: of any kinds.
          names: what messages call them; by default they are numbered.
          on_done: called with the index and the continuation as soon as one is done.

        Raises:
          DataError: one of them cannot be done; none is begun then.
        """
        names = names or [f"request {index}" for index in range(len(requests))]
        for request, name in zip(requests, names, strict=True):
            self.check(request, name)
        found: dict[int, Completion] = {}

        def note(index: int, completion: Completion) -> None:
            found[index] = completion
            if on_done is not None:
                on_done(index, completion)

        # Long ones first, or the last rows to finish would run alone.
        order = sorted(range(len(requests)), key=lambda index: -requests[index].max_new_tokens)
        jobs = [
            self.submit(requests[index], lambda done, index=index: note(index, done))
            for index in order
        ]
        try:
            while self.busy:
                self.turn()
        except BaseException:
            self._abandon(jobs)
            raise
        return [found[index] for index in range(len(requests))]

    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> Generator[str]:
        """The text of one continuation piece by piece, as soon as no later token can change it.

        Joined, the pieces are the `text` that `generate` gives. Closing the iterator ends the
        request.

        Raises:
          DataError: the prompt cannot be continued, or the engine has no tokenizer.
        """
        request = Request(
            prompt, max_new_tokens, sampling or Sampling(), seed=seed, stop_strings=(*stop_strings,)
        )
        if self.tokenizer is None:
            raise DataError("text needs a tokenizer", do="give one: Engine(tokenizer=...)")
        self.check(request, "prompt")
        return self._stream(request)

    def _stream(self, request: Request) -> Generator[str]:
        pieces: deque[Piece] = deque()
        job = self.submit(request, lambda _: None, pieces.append)
        try:
            while pieces or not job.done:
                if pieces:
                    yield pieces.popleft().text
                else:
                    self.turn()
        finally:
            self._abandon([job])

    def check(self, request: Request, at: str) -> None:
        """Passes for a request that can be done.

        Raises:
          DataError: it cannot; see `Request`.
        """
        check_request(
            request,
            at,
            vocab_size=self.config.vocab_size,
            max_length=self.max_length,
            has_tokenizer=self.tokenizer is not None,
        )

    def score(self, pairs: Sequence[tuple[Prompt, Prompt]]) -> list[Score]:
        """How likely each continuation is after its prompt, in order.

        Pairs with one prompt share its reading, and continuations of one token are had with it.

        Args:
          pairs: token ids of prompts and of continuations, each of at least one token.

        Raises:
          DataError: one is empty, has ids outside the vocabulary or does not fit the length.
        """
        scorer = Scorer(self._worker, self._table, self.max_length, self._wait_for_row)
        return scorer.score(pairs)

    def _wait_for_row(self) -> None:
        while not self._table.num_free:
            self.turn()

    def score_prompt(self, tokens: Prompt, tops: int = 0) -> tuple[Score, Any, Any]:
        """The log-probability of each token of a text but the first, in one pass.

        Returns:
          the score, and the `tops` likeliest tokens with their log-probabilities at each place,
          [tokens - 1, tops].

        Raises:
          DataError: as `score`.
        """
        (found,) = self.run([Request(tokens, 0, prompt_tops=tops)], ["text"])
        scores = found.prompt
        assert scores is not None
        score = Score(np.asarray(scores.logprobs), bool(scores.greedy.all()))
        return score, scores.top_tokens, scores.top_logprobs

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

    # What follows serves many callers at once: the server hands requests over and takes turns.
    @property
    def slots(self) -> int:
        """Requests that run side by side."""
        return self._worker.slots

    @property
    def busy(self) -> bool:
        """Whether any request is not done."""
        return bool(self._queue or self._reading or self._running)

    @property
    def num_running(self) -> int:
        """Rows that have a request."""
        return len(self._running) + (self._reading is not None)

    def submit(
        self,
        request: Request,
        on_done: Callable[[Completion], None],
        on_piece: Callable[[Piece], None] | None = None,
    ) -> Job:
        """Puts a checked request into the queue; its `cancelled` takes it out again.

        Args:
          request: what to do.
          on_done: called, by `turn`, with the continuation.
          on_piece: called with each piece of the answer that is certain, as soon as it is.
        """
        stops = self.stop_ids if request.stop_ids is None else request.stop_ids
        job = Job(request, stops, self.max_length, self.tokenizer, on_done, on_piece)
        self._queue.append(job)
        return job

    def turn(self, *, read_at_most: int | None = None) -> None:
        """Gives free rows to waiting requests, then decodes once.

        Args:
          read_at_most: pieces of prompts that are read before rows that decode go on; None reads
            until no row is free.
        """
        self._drop_cancelled()
        self._fill(read_at_most)
        self.stats.count_rows(len(self._running), self._worker.slots)
        if not self._running:
            return
        made = self._worker.decode(self._num_tokens())
        for row, job in list(self._running.items()):
            job.add(made.of(row))
            if job.done:
                self._release(job)

    def abandon(self) -> None:
        """Ends all requests, of which nobody is told: after a `turn` that failed."""
        reading = [self._reading] if self._reading else []
        self._abandon([*self._queue, *reading, *self._running.values()])

    def _num_tokens(self) -> int:
        """Tokens of the next dispatch: few where someone waits for its end."""
        jobs = self._running.values()
        if any(job.streams for job in jobs):
            return PROMPT_TOKENS
        if self._queue or any(job.request.stop_strings for job in jobs):
            return CROWDED_TOKENS
        return DISPATCH_TOKENS

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

    def _abandon(self, jobs: Sequence[Job]) -> None:
        """Ends jobs that nobody waits for, after an interruption at any moment."""
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
