"""Quirks: what the paper's evaluation code did otherwise than it should, each with a name.

Every quirk has two behaviours. `paper` is the reference's (allenai/open-instruct@662c2ad49), which
the paper's numbers were made with; `fixed` is the right one. Results list those in force.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from tulu_jax.errors import ConfigError

Mode = Literal["paper", "fixed"]


@dataclasses.dataclass(frozen=True)
class Quirk:
    """A named difference between the reference and what is right."""

    name: str
    line: str
    """What it is about, in one line."""
    paper: str
    """What the reference does."""
    fixed: str
    """What is right."""


SHARED = (
    Quirk(
        "slow_tokenizer",
        "which of transformers' tokenizers splits a prompt into tokens",
        "the slow one, where the model has a SentencePiece model or GPT-2's files",
        "the fast one, which exported checkpoints are loaded with today",
    ),
    Quirk(
        "special_text",
        "text of a prompt that looks like a special token, such as </s>",
        "becomes that token",
        "stays text",
    ),
    Quirk(
        "stop_by_tokens",
        "what ends an output",
        "the token ids of a stop string encoded alone, so other spellings of it go unseen",
        "the stop string in the decoded text",
    ),
    Quirk(
        "chat_stops",
        "stop strings in chat format",
        "an answer in chat format ends at the base model's stop string too (a new line)",
        "an answer in chat format ends where the model ends it",
    ),
)
"""Those that concern every benchmark."""


class Quirks(Mapping[str, Mode]):
    """The behaviour in force of each quirk that concerns a benchmark.

    >>> quirks = Quirks(SHARED, "fixed", {"chat_stops": "paper"})
    >>> quirks["chat_stops"], quirks["special_text"], quirks.paper("chat_stops")
    ('paper', 'fixed', True)
    """

    def __init__(
        self, known: Iterable[Quirk], compat: Mode, overrides: Mapping[str, Mode] | None = None
    ) -> None:
        """All of `known` as `compat` says, but for the overrides that name one of them."""
        chosen = overrides or {}
        self._modes: dict[str, Mode] = {q.name: chosen.get(q.name, compat) for q in known}

    def __getitem__(self, name: str) -> Mode:
        return self._modes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modes)

    def __len__(self) -> int:
        return len(self._modes)

    def paper(self, name: str) -> bool:
        """Whether the reference's behaviour is in force."""
        return self._modes[name] == "paper"


def read_overrides(texts: Sequence[str], known: Iterable[str]) -> dict[str, Mode]:
    """The values of `--quirk NAME=paper|fixed`, the last of each name.

    >>> read_overrides(["chat_stops=paper"], ["chat_stops"])
    {'chat_stops': 'paper'}

    Raises:
      ConfigError: no such quirk, or neither of its two behaviours.
    """
    names = sorted(known)
    found: dict[str, Mode] = {}
    for text in texts:
        name, _, mode = text.partition("=")
        if name not in names:
            raise ConfigError(
                "unknown quirk",
                got=repr(name),
                at="--quirk",
                expected=f"one of {', '.join(names)}",
                do="see tulu eval quirks",
            )
        if mode not in get_args(Mode):
            raise ConfigError(
                "unknown behaviour of a quirk",
                got=repr(mode),
                at=f"--quirk {name}",
                expected=f"{name}=paper or {name}=fixed",
            )
        found[name] = mode  # type: ignore[assignment]
    return found
