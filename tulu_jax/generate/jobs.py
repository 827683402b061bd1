"""A request on its way: what it has so far, and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tulu_jax.generate.requests import Completion, Request
from tulu_jax.generate.stops import find_stop, held_back

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer


class Made(NamedTuple):
    """What one dispatch added to a row."""

    tokens: np.ndarray
    logprobs: np.ndarray
    top_tokens: np.ndarray
    top_logprobs: np.ndarray


class Job:
    """One request; `done` once its last token is there, or it was cancelled."""

    def __init__(
        self,
        request: Request,
        stop_ids: tuple[int, ...],
        max_length: int,
        tokenizer: Tokenizer | None,
        on_done: Callable[[Completion], None],
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        """A request with nothing done."""
        self.request = request
        self.stop_ids = stop_ids
        self.prompt = np.asarray(request.prompt, np.int32)
        self.limit = min(request.max_new_tokens, max_length - self.prompt.size)
        self.row = -1
        self.num_read = 0
        self.cancelled = False
        self._made: list[Made] = []
        self._tokens: list[int] = []
        self._reason = ""
        self._tokenizer = tokenizer
        self._on_done, self._on_text = on_done, on_text
        self._text: str | None = None
        self._sent = 0

    @property
    def to_read(self) -> np.ndarray:
        """The prompt but for its last token, which the first step of decoding takes in."""
        return self.prompt[:-1]

    @property
    def streams(self) -> bool:
        """Whether a reader waits for every piece."""
        return self._on_text is not None

    @property
    def done(self) -> bool:
        """Whether nothing is to be added."""
        return bool(self._reason) or self.cancelled

    @property
    def logprobs(self) -> np.ndarray:
        """Log-probabilities of all tokens so far, the stop token's too."""
        return np.concatenate([np.zeros(0, np.float32), *(made.logprobs for made in self._made)])

    def add(self, made: Made) -> None:
        """Takes what a dispatch added, and sees whether it is the end."""
        if not made.tokens.size or self.cancelled:
            return
        self._made.append(made)
        self._tokens += made.tokens.tolist()
        if self._tokens[-1] in self.stop_ids:
            self._tokens.pop()
            self._reason = "eos"
        elif len(self._tokens) >= self.limit:
            self._reason = "length" if self.limit == self.request.max_new_tokens else "room"
        self._look_for_stop()
        self._send()

    def _look_for_stop(self) -> None:
        strings = self.request.stop_strings
        if not strings:
            return
        found = find_stop(self._tokens, strings, self._decode)
        if found is not None:
            self._reason, self._text = f"stop:{found.string}", found.text
            del self._tokens[found.num_tokens :]

    def _decode(self, tokens: Sequence[int]) -> str:
        assert self._tokenizer is not None  # checked with the request
        return self._tokenizer.decode(tokens, after=True)

    def _send(self) -> None:
        """Hands on the text that no later token can change."""
        if self._on_text is None:
            return
        text = self._decode(self._tokens) if self._text is None else self._text
        end = len(text) if self.done else len(text) - held_back(text, self.request.stop_strings)
        if end > self._sent:
            self._on_text(text[self._sent : end])
            self._sent = end

    def abandon(self) -> None:
        """Cancels it; nobody is told."""
        self.cancelled = True
        self._on_done, self._on_text = lambda _: None, None

    def finish(self) -> None:
        """Hands on the completion."""
        count = len(self._tokens)
        text = self._text
        if text is None and self._tokenizer is not None:
            text = self._decode(self._tokens)
        tops = self.request.tops
        self._on_done(
            Completion(
                tokens=self._tokens,
                logprobs=self.logprobs[:count],
                stop_reason=self._reason or "cancelled",
                text=text,
                capped=self.limit < self.request.max_new_tokens,
                top_tokens=self._tops("top_tokens", np.int32) if tops else None,
                top_logprobs=self._tops("top_logprobs", np.float32) if tops else None,
            )
        )

    def _tops(self, name: str, dtype: type) -> np.ndarray:
        empty = np.zeros((0, self.request.tops), dtype)
        parts = [getattr(made, name)[:, : self.request.tops] for made in self._made]
        return np.concatenate([empty, *parts])[: len(self._tokens)]
