"""What callers ask of engines: lists of prompts, streams, texts to score.

All of it is made of requests that are handed over and turns that are taken, which is what the
server does itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu_jax.errors import DataError
from tulu_jax.generate.jobs import Job, Piece
from tulu_jax.generate.requests import Completion, Prompt, Request, Score, check_request
from tulu_jax.generate.sample import Sampling
from tulu_jax.generate.steps import MAX_TOPS
from tulu_jax.models import ModelConfig

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.generate.stats import Stats


class Front(ABC):
    """One engine, or several that share the work."""

    config: ModelConfig
    max_length: int
    """Longest prompt and continuation, in tokens."""
    stop_ids: tuple[int, ...]
    """Tokens that end a continuation, unless a request says otherwise."""
    tokenizer: Tokenizer | None

    @property
    @abstractmethod
    def stats(self) -> Stats:
        """What was done, in numbers."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Requests that run side by side."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether any request is not done."""

    @property
    @abstractmethod
    def num_running(self) -> int:
        """Rows that have a request."""

    @abstractmethod
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

    def new_job(
        self,
        request: Request,
        on_done: Callable[[Completion], None],
        on_piece: Callable[[Piece], None] | None = None,
    ) -> Job:
        """A job with nothing done, in no queue."""
        stops = self.stop_ids if request.stop_ids is None else request.stop_ids
        return Job(request, stops, self.max_length, self.tokenizer, on_done, on_piece)

    @abstractmethod
    def turn(self, *, read_at_most: int | None = None) -> None:
        """Gives free rows to waiting requests, then decodes once.

        Args:
          read_at_most: pieces of prompts that are read before rows that decode go on; None reads
            until no row is free.
        """

    @abstractmethod
    def drop(self, jobs: Sequence[Job]) -> None:
        """Ends jobs that nobody waits for, after an interruption at any moment."""

    @abstractmethod
    def abandon(self) -> None:
        """Ends all requests, of which nobody is told: after a `turn` that failed."""

    @abstractmethod
    def score(self, pairs: Sequence[tuple[Prompt, Prompt]]) -> list[Score]:
        """How likely each continuation is after its prompt, in order.

        Pairs with one prompt share its reading, and continuations of one token are had with it.

        Args:
          pairs: token ids of prompts and of continuations, each of at least one token.

        Raises:
          DataError: one is empty, has ids outside the vocabulary or does not fit the length.
        """

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
            self.drop(jobs)
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
            self.drop([job])

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
