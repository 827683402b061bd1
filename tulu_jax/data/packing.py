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

    Raises:
      DataError: an example of no token or of more than `row_length`.
      ConfigError: an unknown mode.
    """
    lengths = np.asarray(lengths)
    if mode not in PACKING_MODES:
        known = " or ".join(PACKING_MODES)
        raise ConfigError("unknown packing mode", got=repr(mode), expected=known)
    _check_lengths(lengths, row_length)
    if mode == "padded":
        examples = np.arange(len(lengths), dtype=np.int32)
        starts = np.arange(len(lengths) + 1)
    else:
        examples, starts = _best_fit_decreasing(lengths, row_length, seed)
    return PackingPlan(row_length, examples, starts, int(lengths.sum(dtype=np.int64)))


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
    """Examples grouped by row, and where each row starts."""
    order = _longest_first(lengths, row_length, seed)
    counts = np.bincount(lengths, minlength=row_length + 1)
    row_of, num_rows = _place_runs(counts, row_length)
    examples = order[np.argsort(row_of, kind="stable")]
    starts = np.zeros(num_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row_of, minlength=num_rows), out=starts[1:])
    return examples, starts


def _longest_first(lengths: np.ndarray, row_length: int, seed: int) -> Int[np.ndarray, "examples"]:
    """Example numbers from the longest to the shortest, those of one length in random order."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
    mixed = generator.permutation(np.arange(len(lengths), dtype=np.int32))
    # NumPy sorts 16-bit numbers by radix, ten times as fast as wider ones.
    narrow = np.uint16 if row_length < 1 << 16 else np.int64
    return mixed[np.argsort((row_length - lengths[mixed]).astype(narrow), kind="stable")]


def _place_runs(
    counts: Int[np.ndarray, "lengths"], row_length: int
) -> tuple[Int[np.ndarray, "examples"], int]:
    """The row of each example, longest first, and the number of rows.

    `counts[n]` examples have length n. What best fit does with one of them it does with the next:
    a row of the smallest space that fits takes as many as it can hold, then the row beside it. So
    examples of one length are placed run by run, and time grows with the number of different
    lengths and spaces, not with the number of examples.

    Rows wait in one stack per free space; a big integer holds one bit per stack that is not
    empty, so that "the smallest space of at least n" is a shift and a lowest set bit.
    """
    stacks: list[list[np.ndarray]] = [[] for _ in range(row_length + 1)]
    row_of = np.empty(int(counts.sum()), dtype=np.int32)
    place = num_rows = spaces = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            fitting = spaces >> length
            space = length + (fitting & -fitting).bit_length() - 1 if fitting else row_length
            each = space // length
            wanted = -(-left // each)
            if fitting:
                rows = _pop(stacks[space], wanted)
                spaces ^= 0 if stacks[space] else 1 << space
            else:
                rows = np.arange(num_rows, num_rows + wanted, dtype=np.int32)
                num_rows += wanted
            placed = min(left, len(rows) * each)
            row_of[place : place + placed] = np.repeat(rows, each)[:placed]
            whole, last = divmod(placed, each)
            for some, rest in ((rows[:whole], each), (rows[whole:], last)):
                if len(some) and (space_left := space - rest * length):
                    stacks[space_left].append(some)
                    spaces |= 1 << space_left
            place += placed
            left -= placed
    return row_of, num_rows


def _pop(stack: list[np.ndarray], wanted: int) -> Int[np.ndarray, "rows"]:
    """At most `wanted` rows from the top of the stack, the topmost first."""
    taken = []
    while stack and wanted:
        top = stack.pop()
        if len(top) > wanted:
            stack.append(top[:-wanted])
            top = top[-wanted:]
        wanted -= len(top)
        taken.append(top[::-1])
    return taken[0] if len(taken) == 1 else np.concatenate(taken)
