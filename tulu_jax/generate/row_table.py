"""What the cache's rows hold: which are free, and which begin as a prompt begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

NOTHING = np.zeros(0, np.int32)


class Found(NamedTuple):
    """A row for a prompt."""

    row: int
    source: int
    """A row that begins as the prompt does: the same one, or one to copy from."""
    num_tokens: int
    """So many tokens need not be read again."""


class RowTable:
    """Prompts of the cache's rows, also of those that are done until they are overwritten.

    Only tokens that were read in whole pieces are shared: pieces lie on one grid for all prompts,
    so a shared piece is, to the bit, what reading it again would give. The rest of a prompt is
    shared with one that is equal to its end.
    """

    def __init__(self, rows: int, piece: int) -> None:
        """A table of empty, free rows."""
        self._piece = piece
        self._read: list[Int[np.ndarray, " tokens"]] = [NOTHING] * rows
        self._free = list(range(rows))
        """From the longest free on."""

    @property
    def num_free(self) -> int:
        """Rows that can be taken."""
        return len(self._free)

    def take(self, tokens: Int[np.ndarray, " tokens"]) -> Found:
        """Takes a free row for a prompt whose `tokens` are to be read.

        The row that shares most is taken if it is free, else copied into the row that has been free
        longest.
        """
        shared = [self._shared(held, tokens) for held in self._read]
        best = max(shared)
        sources = [row for row, count in enumerate(shared) if count == best]
        free = [row for row in self._free if row in sources]
        row = free[0] if free else self._free[0]
        self._free.remove(row)
        self._read[row] = NOTHING
        return Found(row, row if free else sources[0], best)

    def _shared(self, held: Int[np.ndarray, " tokens"], tokens: Int[np.ndarray, " tokens"]) -> int:
        size = min(held.size, tokens.size)
        differs = np.flatnonzero(held[:size] != tokens[:size])
        same = int(differs[0]) if differs.size else size
        whole = same == tokens.size == held.size
        return same if whole else same // self._piece * self._piece

    def hold(self, row: int, tokens: Int[np.ndarray, " tokens"]) -> None:
        """Notes what a row's beginning now is."""
        self._read[row] = tokens

    def release(self, row: int) -> None:
        """The row is free again; what it holds can be shared until another takes it."""
        self._free.append(row)

    def forget(self) -> None:
        """No row holds anything any more."""
        self._read = [NOTHING] * len(self._read)
