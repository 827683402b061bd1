"""What is asked of the engine and what it answers, with the checks of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from tulu_jax.errors import ConfigError, DataError
from tulu_jax.fields import check_fields, least, setting
from tulu_jax.generate.sample import Sampling, check_seed
from tulu_jax.generate.steps import MAX_TOPS, Scored

Prompt = Sequence[int] | np.ndarray

MAX_STOP_IDS = 64
MAX_STOP_STRINGS = 64
MAX_BIASES = 300
"""As many tokens as OpenAI's interface takes biases for."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt and how it is to be continued.

    Raises:
      ConfigError: a value is outside its range.
    """

    prompt: Any
    """Token ids, BOS included: a `Prompt`, which is checked when it is handed over."""
    max_new_tokens: int = setting(256, least(0), help="tokens of the longest continuation")
    """0 only where the prompt is scored."""
    sampling: Sampling = Sampling()
    seed: int = 0
    stream: int = setting(0, least(0), help="which of the seed's streams of random numbers")
    stop_ids: tuple[int, ...] | None = None
    """Tokens that end it; None takes the model's."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end it; the text ends before them."""
    tops: int = setting(0, least(0), help="likeliest tokens to report at each position")
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    """What is added to the logits of tokens before one is chosen."""
    prompt_tops: int | None = setting(None, least(0))
    """Whether the prompt's own tokens are scored (`Completion.prompt`), as they are read, and how
    many likeliest tokens are reported at each place; None: they are not."""
    keep_stop: bool = False
    """Whether a stop token stays at the end of `Completion.tokens`."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_fields(self)
        check_seed(self.seed)
        if self.max_new_tokens == 0 and self.prompt_tops is None:
            raise ConfigError(
                "Request.max_new_tokens is out of range",
                got=0,
                expected="a number above 0, unless prompt_tops says that the prompt is scored",
            )


@dataclasses.dataclass(frozen=True)
class Completion:
    """One continuation of a prompt."""

    tokens: list[int]
    """Without the stop token, unless it was to be kept; where a stop string ended it, up to the
    token that completed it."""
    logprobs: Float[np.ndarray, " tokens"]
    """Of each token under the model itself, before biases and temperature."""
    stop_reason: str
    """`eos`, `stop:<string>`, `length` (`max_new_tokens` are there), `room` (the model's length is
    reached before) or `cancelled`."""
    text: str | None = None
    """What the tokens say, up to a stop string; None where the engine has no tokenizer."""
    capped: bool = False
    """Whether the prompt left less room than `max_new_tokens`."""
    top_tokens: Int[np.ndarray, "tokens tops"] | None = None
    top_logprobs: Float[np.ndarray, "tokens tops"] | None = None
    prompt: Scored | None = None
    """Of each of the prompt's tokens but the first, where `Request.prompt_tops` asks for them."""


@dataclasses.dataclass(frozen=True)
class Score:
    """How likely a continuation is."""

    logprobs: Float[np.ndarray, " tokens"]
    """Log-probability of each of its tokens after those before it."""
    greedy: Literal[True, False]
    """Whether each was the likeliest at its place."""

    @property
    def total(self) -> float:
        """The log-probability of the whole continuation, summed in float64."""
        return float(self.logprobs.astype(np.float64).sum())


def check_ids(ids: np.ndarray, at: str, vocab_size: int, what: str = "prompt") -> None:
    """Refuses what is no sequence of the model's tokens.

    Raises:
      DataError: it is empty, not of whole numbers, or has ids outside the vocabulary.
    """
    if ids.size == 0:
        raise DataError(f"{what} is empty", at=at, expected="at least one token")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(
            f"{what} is no list of token ids",
            got=f"an array of {ids.dtype} with {ids.ndim} axes",
            at=at,
            expected="whole numbers",
        )
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise DataError(
            f"{what} has token ids outside the model's vocabulary",
            got=f"ids from {ids.min()} to {ids.max()}",
            at=at,
            expected=f"0 to {vocab_size - 1}",
            do="use the tokenizer the model was trained with",
        )


def check_room(count: int, at: str, max_length: int) -> None:
    """Refuses a prompt that fills the model's length.

    Raises:
      DataError: no token fits after it.
    """
    if count >= max_length:
        raise DataError(
            "prompt leaves no room for an answer in the model's sequences",
            got=f"{count} tokens",
            at=at,
            expected=f"fewer than max_length={max_length}",
            do="shorten it or leave it out",
        )


def check_request(
    request: Request, at: str, *, vocab_size: int, max_length: int, has_tokenizer: bool
) -> None:
    """Refuses a request that cannot be done.

    Raises:
      DataError: of the prompt, see above; too many stops, biases or likeliest tokens, or stop
        strings that are empty or without a tokenizer to read them by.
    """
    ids = np.asarray(request.prompt)
    check_ids(ids, at, vocab_size)
    if request.max_new_tokens == 0 and ids.size > max_length:
        raise DataError(
            "prompt has no room in the model's sequences", got=f"{ids.size} tokens", at=at,
            expected=f"at most max_length={max_length}", do="shorten it or leave it out",
        )  # fmt: skip
    if request.max_new_tokens:
        check_room(ids.size, at, max_length)
    counts = {
        "stop_ids": (len(request.stop_ids or ()), MAX_STOP_IDS),
        "stop_strings": (len(request.stop_strings), MAX_STOP_STRINGS),
        "tops": (request.tops, MAX_TOPS),
        "prompt_tops": (request.prompt_tops or 0, MAX_TOPS),
        "logit_bias": (len(request.logit_bias), MAX_BIASES),
    }
    for name, (got, most) in counts.items():
        if got > most:
            raise DataError(f"too many {name}", got=got, at=at, expected=f"at most {most}")
    if not all(request.stop_strings):
        raise DataError("a stop string is empty", at=at, do="leave it out")
    if request.stop_strings and not has_tokenizer:
        raise DataError(
            "stop strings need a tokenizer", at=at, do="give the engine one: Engine(tokenizer=...)"
        )
    biased = np.array(list(request.logit_bias), np.int64)
    if biased.size:
        check_ids(biased, at, vocab_size, "logit_bias")
        if not np.isfinite(list(request.logit_bias.values())).all():
            raise DataError("logit_bias is not finite", got=dict(request.logit_bias), at=at)
