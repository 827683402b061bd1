"""What the cache's rows hold: which are free, and which begin as a prompt begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from tulu_jax.generate.steps import Scored


class Found(NamedTuple):
    """A row for a prompt."""

    row: int
    source: int
    """A row that begins as the prompt does: the same one, or one to copy from."""
    num_tokens: int
    """So many tokens need not be read again."""
    scored: tuple[Scored, ...] = ()
    """Where they are scored ones, what was found of each piece."""


class Held(NamedTuple):
    """What a row begins with."""

    tokens: Int[np.ndarray, " tokens"]
    tops: int | None = None
    """None: the tokens were read. A number: each but the first was scored after those before it,
    with so many likeliest ones; the last was not read."""
    scored: tuple[Scored, ...] = ()
    """What was found of each piece."""


NOTHING = Held(np.zeros(0, np.int32))


class RowTable:
    """Prompts of the cache's rows, also of those that are done until they are overwritten.

    Only tokens that were read in whole pieces are shared: pieces lie on one grid for all prompts,
    so a shared piece is, to the bit, what reading it again would give. The rest of a prompt is
    shared with one that is equal to its end. A piece that was scored is not, to the bit, one that
    was read, as other programs make them: each is shared with its own kind.
    """

    def __init__(self, rows: int, piece: int) -> None:
        """A table of empty, free rows."""
        self._piece = piece
        self._held = [NOTHING] * rows
        self._free = list(range(rows))
        """From the longest free on."""
        self._alike: np.ndarray | None = None
        """The answer of `alike`, until a row holds something else."""

    @property
    def num_free(self) -> int:
        """Rows that can be taken."""
        return len(self._free)

    def take(self, tokens: Int[np.ndarray, " tokens"], tops: int | None = None) -> Found:
        """Takes a free row for a prompt whose `tokens` are to be read, or scored (see `Held`).

        The row that shares most is taken if it is free, else copied into the row that has been free
        longest.
        """
        shared = [self._shared(held, tokens) if held.tops == tops else 0 for held in self._held]
        best = max(shared)
        sources = [row for row, count in enumerate(shared) if count == best]
        free = [row for row in self._free if row in sources]
        row = free[0] if free else self._free[0]
        self._free.remove(row)
        source = row if free else sources[0]
        scored = self._held[source].scored[: -(-best // self._piece)]
        self._set(row, NOTHING)
        return Found(row, source, best, scored)

    def _shared(self, held: Held, tokens: Int[np.ndarray, " tokens"]) -> int:
        size = min(held.tokens.size, tokens.size)
        differs = np.flatnonzero(held.tokens[:size] != tokens[:size])
        same = int(differs[0]) if differs.size else size
        whole = same == tokens.size == held.tokens.size
        if held.tops is not None:  # a scored token's own score needs the one after it to be equal
            same = max(0, same - 1)
        return same if whole else same // self._piece * self._piece

    def alike(self, size: int, blocks: int) -> Int[np.ndarray, "B blocks"]:
        """Of each row's blocks of `size` slots, the first row that holds the same there.

        Only what was read in whole pieces is the same to the bit; see above. With blocks of two
        slots, of which row 1 has the first in common with row 0:

        >>> table = RowTable(3, piece=2)
        >>> table.hold(0, np.asarray([5, 6, 7, 8]))
        >>> table.hold(1, np.asarray([5, 6, 9, 9, 9]))
        >>> table.alike(2, 3).tolist()
        [[0, 0, 0], [0, 1, 1], [2, 2, 2]]
        """
        if self._alike is None:
            rows = range(len(self._held))
            self._alike = np.repeat(np.asarray(rows, np.int32)[:, None], blocks, axis=1)
            for row in rows:
                held, found = self._held[row], self._alike[row]
                for other in range(row):
                    before = self._held[other]
                    same = self._shared(before, held.tokens) if before.tops == held.tops else 0
                    part = found[: same // size]
                    part[part == row] = other
        return self._alike

    def hold(
        self,
        row: int,
        tokens: Int[np.ndarray, " tokens"],
        tops: int | None = None,
        scored: Sequence[Scored] = (),
    ) -> None:
        """Notes what a row's beginning now is; see `Held`."""
        self._set(row, Held(tokens, tops, tuple(scored)))

    def _set(self, row: int, held: Held) -> None:
        self._held[row], self._alike = held, None

    def release(self, row: int) -> None:
        """The row is free again; what it holds can be shared until another takes it."""
        self._free.append(row)

    def forget(self) -> None:
        """No row holds anything any more."""
        self._held, self._alike = [NOTHING] * len(self._held), None
