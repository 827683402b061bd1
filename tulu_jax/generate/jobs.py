"""A request on its way: what it has so far, and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tulu_jax.generate.requests import Completion, Request
from tulu_jax.generate.steps import MAX_TOPS, Scored
from tulu_jax.generate.stops import find_stop, held_back

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer


class Made(NamedTuple):
    """What one dispatch added to a row."""

    tokens: np.ndarray
    logprobs: np.ndarray
    top_tokens: np.ndarray
    top_logprobs: np.ndarray


class Piece(NamedTuple):
    """What a reader who waits gets of an answer: what no later token can change."""

    text: str
    tokens: list[int]
    """Those made since the piece before, of which the last may have text that is held back."""
    logprobs: np.ndarray
    top_tokens: np.ndarray
    top_logprobs: np.ndarray
    prompt: Scored | None
    """The prompt's scores, in the first piece."""


def text_after(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """What tokens say after a prompt.

    Special ones are as if they were not there, as transformers has it: what a model writes after a
    BOS of its own begins with the space that the next word brings. Nor do ids that a padded
    vocabulary has beyond the tokenizer's stand for text.
    """
    special, size = tokenizer.special_ids, tokenizer.vocab_size
    plain = [token for token in tokens if token not in special and token < size]
    return tokenizer.decode(plain, after=True)


class Job:
    """One request; `done` once its last token is there, or it was cancelled."""

    def __init__(
        self,
        request: Request,
        stop_ids: tuple[int, ...],
        max_length: int,
        tokenizer: Tokenizer | None,
        on_done: Callable[[Completion], None],
        on_piece: Callable[[Piece], None] | None = None,
    ) -> None:
        """A request with nothing done."""
        self.request = request
        self.stop_ids = stop_ids
        self.prompt = np.asarray(request.prompt, np.int32)
        self.limit = min(request.max_new_tokens, max_length - self.prompt.size)
        self.row = -1
        self.num_read = 0
        self.cancelled = False
        self.scored: list[Scored] = []
        self._made: list[Made] = []
        self._tokens: list[int] = []
        self._stop_token: list[int] = []
        self._reason = "" if self.limit else "length"
        self._tokenizer = tokenizer
        self._on_done, self._on_piece = on_done, on_piece
        self._text: str | None = None
        self._sent, self._sent_tokens = 0, -1

    @property
    def to_read(self) -> np.ndarray:
        """The prompt but for its last token, which the first step of decoding takes in."""
        return self.prompt[:-1]

    @property
    def streams(self) -> bool:
        """Whether a reader waits for every piece."""
        return self._on_piece is not None

    @property
    def tops(self) -> int | None:
        """Likeliest tokens that are found at each place of the prompt; None: it is only read.

        One or all that can be asked for: these are programs of their own.
        """
        wanted = self.request.prompt_tops
        return None if wanted is None else 1 if wanted <= 1 else MAX_TOPS

    @property
    def key(self) -> np.ndarray:
        """What others share with it: the tokens it reads, with the last one's target if scored."""
        return self.to_read if self.tops is None else self.prompt

    @property
    def num_left(self) -> int:
        """Most tokens that are still to come."""
        return self.limit - len(self._tokens)

    @property
    def done(self) -> bool:
        """Whether nothing is to be added."""
        return bool(self._reason) or self.cancelled

    @property
    def logprobs(self) -> np.ndarray:
        """Log-probabilities of all tokens so far, the stop token's too."""
        return np.concatenate([np.zeros(0, np.float32), *(made.logprobs for made in self._made)])

    @property
    def all_finite(self) -> bool:
        """Whether no number that was found has overflowed."""
        scores = (one.logprobs for one in self.scored)
        return all(np.isfinite(found).all() for found in (self.logprobs, *scores))

    def add(self, made: Made) -> None:
        """Takes what a dispatch added, and sees whether it is the end."""
        if not made.tokens.size or self.cancelled:
            return
        self._made.append(made)
        self._tokens += made.tokens.tolist()
        if self._tokens[-1] in self.stop_ids:
            self._stop_token = [self._tokens.pop()]
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
            self._stop_token = []

    def _decode(self, tokens: Sequence[int]) -> str:
        assert self._tokenizer is not None  # checked with the request
        return text_after(tokens, self._tokenizer)

    def _send(self) -> None:
        """Hands on what no later token can change."""
        if self._on_piece is None or self.cancelled:
            return
        text = self._decode(self._tokens) if self._text is None else self._text
        end = len(text) if self.done else len(text) - held_back(text, self.request.stop_strings)
        count = len(self._all_tokens)
        if end > self._sent or (self.done and count > self._sent_tokens):
            first = self._sent_tokens < 0
            start = max(0, self._sent_tokens)
            self._on_piece(
                Piece(
                    text[self._sent : end],
                    self._all_tokens[start:],
                    self.logprobs[start:count],
                    self._tops("top_tokens", np.int32)[start:],
                    self._tops("top_logprobs", np.float32)[start:],
                    self.prompt_scores if first else None,
                )
            )
            self._sent, self._sent_tokens = end, count

    @property
    def _all_tokens(self) -> list[int]:
        return self._tokens + self._stop_token if self.request.keep_stop else self._tokens

    @property
    def prompt_scores(self) -> Scored | None:
        """Of the prompt's tokens but the first, if they are wanted."""
        tops = self.request.prompt_tops
        if tops is None:
            return None
        shape = (0, self.tops or 0)
        ids, numbers = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        empty = (np.zeros(0, np.float32), np.zeros(0, bool), ids, numbers)
        parts = zip(empty, *self.scored, strict=True)
        joined: list[Any] = [np.concatenate(arrays) for arrays in parts]
        return Scored(joined[0], joined[1], joined[2][:, :tops], joined[3][:, :tops])

    def abandon(self) -> None:
        """Cancels it; nobody is told."""
        self.cancelled = True
        self._on_done, self._on_piece = lambda _: None, None

    def finish(self) -> None:
        """Hands on the completion."""
        self._send()
        tokens = self._all_tokens
        text = self._text
        if text is None and self._tokenizer is not None:
            text = self._decode(self._tokens)
        tops = self.request.tops
        self._on_done(
            Completion(
                tokens=tokens,
                logprobs=self.logprobs[: len(tokens)],
                stop_reason=self._reason or "cancelled",
                text=text,
                capped=self.limit < self.request.max_new_tokens,
                top_tokens=self._tops("top_tokens", np.int32) if tops else None,
                top_logprobs=self._tops("top_logprobs", np.float32) if tops else None,
                prompt=None if self.cancelled else self.prompt_scores,
            )
        )

    def _tops(self, name: str, dtype: type) -> np.ndarray:
        empty = np.zeros((0, self.request.tops), dtype)
        parts = [getattr(made, name)[:, : self.request.tops] for made in self._made]
        return np.concatenate([empty, *parts])[: len(self._all_tokens)]
