"""The conversations that should be left out of training, among those looked at, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tulu_jax.errors import ConfigError
from tulu_jax.inspect.check.options import KINDS

GROUPS: dict[str, tuple[str, ...]] = {
    "contaminated": ("overlap",),
    "duplicate": ("exact_duplicates", "near_duplicates"),
    "broken": ("empty_answers", "cut_answers", "open_code_blocks"),
}
"""Kinds of findings that are excluded by default, under the reason that exclude files give."""

_SAY_THEMSELVES = ("overlap", "exact_duplicates", "near_duplicates", "duplicate_prompts")
"""Kinds whose details say what was found."""

_REASONS = {kind: group for group, kinds in GROUPS.items() for kind in kinds}


class Mark(NamedTuple):
    """One conversation to leave out: its row, the reason, and what was found in it."""

    row: int
    reason: str
    detail: str


def excluded_kinds(text: str) -> tuple[str, ...]:
    """The kinds of findings that these groups and kinds, joined by commas, name.

    >>> excluded_kinds("contaminated,secrets")
    ('overlap', 'secrets')

    Raises: ConfigError for a name that is none, or no name.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in GROUPS and name not in KINDS:
            raise ConfigError(
                "not a kind of finding that can be excluded",
                got=repr(name),
                expected=f"{', '.join(GROUPS)}, or one of {', '.join(KINDS)}",
            )
    if not names:
        raise ConfigError(
            "no kind of finding is excluded",
            got=repr(text),
            expected=f"some of {', '.join(GROUPS)}, {', '.join(KINDS)}",
            do="name them, or leave --exclude_kinds out",
        )
    wanted = {kind for name in names for kind in GROUPS.get(name, (name,))}
    return tuple(kind for kind in KINDS if kind in wanted)


class Marks:
    """Findings of the wanted kinds by row; rows are counted through all datasets."""

    def __init__(self, kinds: Sequence[str] = ()) -> None:
        """Nothing marked yet."""
        self.kinds = tuple(kinds)
        self._found: dict[int, dict[str, list[str]]] = {}
        self._first: dict[str, Int[np.ndarray, "rows"]] = {}

    def wants(self, kind: str) -> bool:
        """Whether findings of this kind are excluded."""
        return kind in self.kinds

    def add(self, row: int, kind: str, detail: str) -> None:
        """Marks a row, if this kind is wanted."""
        if kind in self.kinds:
            if kind not in _SAY_THEMSELVES:
                detail = f"{kind.replace('_', ' ')}: {detail}"
            self._found.setdefault(row, {}).setdefault(kind, []).append(detail)

    def add_copies(self, kind: str, first: Int[np.ndarray, "rows"]) -> None:
        """Takes the first row of each row's group of copies: itself where it is no copy."""
        if kind in self.kinds:
            self._first[kind] = first

    def marks(self, like: Callable[[str, int, int], str]) -> Iterator[Mark]:
        """The rows to leave out, in their order; `like(kind, row, kept)` says what a copy is.

        Of each group of copies one stays: the first that is not left out for another reason.
        """
        self._mark_copies(("exact_duplicates", "near_duplicates"), like)
        self._mark_copies(("duplicate_prompts",), like)
        for row in sorted(self._found):
            found = self._found[row]
            kinds = [kind for kind in self.kinds if kind in found]
            details = [f"{found[kind][0]}{_more(len(found[kind]))}" for kind in kinds]
            reasons = [_REASONS.get(kind, kind) for kind in kinds]
            yield Mark(row, reasons[0], "; ".join(filter(None, details)))

    def _mark_copies(self, kinds: Sequence[str], like: Callable[[str, int, int], str]) -> None:
        """Marks all rows of each group but the one that stays."""
        known = [self._first[kind] for kind in kinds if kind in self._first]
        if not known:
            return
        root = known[0]
        for first in known[1:]:
            root = first[root]  # near copies are told among the first of exact ones only
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(root != np.arange(len(root))).tolist():
            members.setdefault(int(root[row]), [int(root[row])]).append(row)
        taken = set(self._found)
        for group in members.values():
            kept = next((row for row in group if row not in taken), None)
            if kept is None:
                continue
            for row in group:
                if row != kept:
                    kind = self._kind(kinds, row, kept)
                    self.add(row, kind, like(kind, row, kept))

    def _kind(self, kinds: Sequence[str], row: int, kept: int) -> str:
        """The first of the kinds that makes these two rows copies, else the last there is."""
        there = [kind for kind in kinds if kind in self._first]
        same = (kind for kind in there if self._first[kind][row] == self._first[kind][kept])
        return next(same, there[-1])


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""
