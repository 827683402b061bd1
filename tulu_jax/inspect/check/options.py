"""The kinds of findings, by name, and the thresholds at which they count."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_jax.chat import AddTokens
from tulu_jax.errors import ConfigError

KINDS: dict[str, str] = {
    "overlap": "evaluation items that a conversation contains",
    "exact_duplicates": "conversations that are copies of an earlier one",
    "duplicate_prompts": "conversations whose prompts all occurred before",
    "near_duplicates": "conversations nearly like an earlier one",
    "empty_answers": "an answer without text",
    "cut_answers": "an answer that stops in mid-sentence",
    "open_code_blocks": "an answer that leaves a code block open",
    "chat_markers": "markers of a chat format as text, which then come twice",
    "over_max_length": "longer than max_length, so cut or dropped",
    "other_language": "not in the dataset's main language",
    "length_outliers": "prompt or answers far longer or shorter than the dataset's others",
    "secrets": "e-mail addresses, telephone and card numbers, keys",
}
"""The kinds of findings, in the order of the report. Shares of `overlap` are of a benchmark's
items (the highest benchmark counts), all others of the mixture's conversations."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Thresholds. `ngram` in words, `overlap` a share of an item's words, `jaccard` a similarity.

    `worst` findings of each kind are shown for each dataset. With a tokenizer, conversations that
    exceed `max_length` tokens are counted. Conversations with findings of the kinds `exclude` are
    listed.
    """

    ngram: int = 8
    overlap: float = 0.5
    jaccard: float = 0.8
    worst: int = 5
    tokenizer: str | None = None
    encoding: str = "hf"
    chat_template: str = "tulu"
    add_tokens: AddTokens = ()
    max_length: int = 2048
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ConfigError for a threshold that is none."""
        check_overlap_rule(self.ngram, self.overlap)
        if not 0.5 <= self.jaccard <= 1:
            raise ConfigError(
                "not a threshold for near duplicates",
                got=self.jaccard,
                expected="a Jaccard similarity of 0.5 to 1",
            )


MIN_WORDS = 4
"""Texts of fewer words are not looked for: a message equals them by chance."""


def check_overlap_rule(ngram: int, threshold: float) -> None:
    """Passes for runs of at least 4 words and a threshold above 0 and up to 1.

    Raises: ConfigError.
    """
    if ngram < MIN_WORDS or not 0 < threshold <= 1:
        raise ConfigError(
            "not a rule for overlap",
            got=f"runs of {ngram} words, threshold {threshold}",
            expected=f"runs of at least {MIN_WORDS} words, a threshold above 0 and up to 1",
        )


def parse_limit(text: str) -> tuple[str, float]:
    """Kind and share of one `KIND=SHARE`, such as `overlap=0.01`.

    >>> parse_limit("secrets=0.001")
    ('secrets', 0.001)

    Raises: ConfigError for another kind, or a share that is not a number from 0 to 1.
    """
    kind, _, share = text.partition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if kind not in KINDS or not 0 <= value <= 1:
        raise ConfigError(
            "not a limit for --fail_above",
            got=repr(text),
            expected=f"KIND=SHARE, a share from 0 to 1, KIND one of {', '.join(KINDS)}",
        )
    return kind, value
