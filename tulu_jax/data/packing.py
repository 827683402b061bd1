"""The packing plan: which examples share a row of fixed length, decided from lengths alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from tulu_jax.errors import ConfigError, DataError

PackingMode = Literal["best_fit", "padded"]
PACKING_MODES: tuple[PackingMode, ...] = ("best_fit", "padded")


@dataclass(frozen=True, eq=False)
class PackingPlan:
    """Rows of `row_length` tokens; row i holds examples `examples[starts[i]:starts[i + 1]]`.

    Every example lies whole in exactly one row. `tokens` counts the examples' tokens.
    """

    row_length: int
    examples: Int[np.ndarray, "examples"]
    starts: Int[np.ndarray, "rows_plus_1"]
    tokens: int

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @property
    def efficiency(self) -> float:
        """The share of positions that hold a token, 0 to 1; 0 for a plan without rows."""
        places = self.num_rows * self.row_length
        return self.tokens / places if places else 0.0

    def row(self, index: int) -> Int[np.ndarray, "row_examples"]:
        """The examples of one row, in the order in which they lie there."""
        return self.examples[self.starts[index] : self.starts[index + 1]]


def pack(
    lengths: Int[np.ndarray, "examples"],
    row_length: int,
    *,
    mode: PackingMode = "best_fit",
    seed: int = 0,
) -> PackingPlan:
    """The plan that puts every example, whole, into one row of `row_length` tokens.

    `best_fit` takes examples from the longest to the shortest and puts each into the fullest row
    that still has room, or opens a new row. `padded` gives each example a row of its own, in
    order. Among examples of one length `seed` decides who comes first; the same arguments always
    give the same plan.

    Five examples of 6, 3, 5, 2 and 4 tokens in rows of 10:

        row 0   example 0 (6 tokens) + example 4 (4 tokens)                            full
        row 1   example 2 (5 tokens) + example 1 (3 tokens) + example 3 (2 tokens)     full

    >>> plan = pack(np.array([6, 3, 5, 2, 4]), 10)
    >>> plan.row(0), plan.row(1), plan.efficiency
    (array([0, 4], dtype=int32), array([2, 1, 3], dtype=int32), 1.0)
    >>> pack(np.array([6, 3]), 10, mode="padded").starts
    array([0, 1, 2])

    Raises: DataError for an example of no token or of more than `row_length`; ConfigError for an
        unknown mode.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if mode not in PACKING_MODES:
        known = " or ".join(PACKING_MODES)
        raise ConfigError("unknown packing mode", got=repr(mode), expected=known)
    _check_lengths(lengths, row_length)
    if mode == "padded":
        examples = np.arange(len(lengths), dtype=np.int32)
        starts = np.arange(len(lengths) + 1)
    else:
        examples, starts = _best_fit_decreasing(lengths, row_length, seed)
    return PackingPlan(row_length, examples, starts, int(lengths.sum()))


def _check_lengths(lengths: np.ndarray, row_length: int) -> None:
    wrong = np.flatnonzero((lengths < 1) | (lengths > row_length))
    if len(wrong):
        raise DataError(
            "example does not fit a row",
            got=f"{lengths[wrong[0]]} tokens ({len(wrong)} such examples)",
            at=f"example {wrong[0]}",
            expected=f"1 to {row_length} tokens",
            do="prepare the data with max_length no larger than the row length",
        )


def _best_fit_decreasing(
    lengths: np.ndarray, row_length: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Examples grouped by row, and where each row starts.

    Rows wait in one stack per free space; a big integer holds one bit per stack that is not
    empty, so that "the smallest space of at least n" is a shift and a lowest set bit.
    """
    mixed = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(lengths))
    order = mixed[np.argsort(-lengths[mixed], kind="stable")]
    stacks: list[list[int]] = [[] for _ in range(row_length + 1)]
    row_of = [0] * len(order)
    num_rows = 0
    spaces = 0
    for place, length in enumerate(lengths[order].tolist()):
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            stack = stacks[space]
            row = stack.pop()
            if not stack:
                spaces ^= 1 << space
        else:
            space, row = row_length, num_rows
            num_rows += 1
        row_of[place] = row
        rest = space - length
        stacks[rest].append(row)
        spaces |= 1 << rest
    rows = np.asarray(row_of, dtype=np.int64)
    examples = order[np.argsort(rows, kind="stable")].astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))])
    return examples, starts.astype(np.int64)
