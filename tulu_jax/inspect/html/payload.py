"""The content of the page, as plain JSON values: counts, histograms, conversations, packed rows.

A conversation is kept as its token ids; the text of an id is written once for the whole page, and
only tokens whose text depends on their neighbours are written beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tulu_jax.chat import Tokenizer
from tulu_jax.data.faults import unused_lines
from tulu_jax.data.packing import PackingMode, pack
from tulu_jax.data.rows import epoch_order
from tulu_jax.data.specs import short_name
from tulu_jax.inspect.looking import ExampleView, TaskView
from tulu_jax.inspect.pieces import PieceMaker
from tulu_jax.inspect.report import answer_lines

SHARE_EDGES = tuple(range(0, 101, 5))
"""Bounds of the loss-share histogram, in per cent; the last bin includes 100 %."""


@dataclass(frozen=True, eq=False)
class PackedRow:
    """Row `number` of the plan, `length` tokens long, with the conversations that share it."""

    number: int
    length: int
    segments: tuple[ExampleView, ...]

    @property
    def filled(self) -> int:
        """How many of its positions hold a token; the rest is padding."""
        return sum(len(segment.tokens) for segment in self.segments)


def packed_rows(
    tasks: Sequence[TaskView],
    *,
    row_length: int,
    packing: PackingMode = "best_fit",
    seed: int = 42,
) -> Iterator[PackedRow]:
    """The rows in the order in which training sees them with this seed and nothing held out."""
    tasks = [task for task in tasks if len(task)]
    if not tasks:
        return
    lengths = np.concatenate([task.lengths for task in tasks])
    plan = pack(lengths, row_length, mode=packing, seed=seed)
    starts = np.cumsum([0, *(len(task) for task in tasks)])

    def example(number: int) -> ExampleView:
        which = int(np.searchsorted(starts, number, side="right")) - 1
        return tasks[which].example(number - int(starts[which]))

    for number in epoch_order(plan.num_rows, seed=seed, epoch=0).tolist():
        segments = tuple(map(example, plan.row(number).tolist()))
        yield PackedRow(number, row_length, segments)


def report_data(
    tasks: Sequence[TaskView],
    examples: Sequence[ExampleView],
    rows: Sequence[PackedRow],
    *,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """Everything of the page but its title, settings and sections."""
    pool = _Pool(tokenizer, [task.name for task in tasks])
    shown = [pool.add(example) for example in examples]
    packed = [
        {
            "number": row.number,
            "length": row.length,
            "segments": [pool.add(segment) for segment in row.segments],
        }
        for row in rows
    ]
    return {
        "tasks": [task_counts(task) for task in tasks],
        "lengths": _length_histogram(tasks),
        "shares": _share_histogram(tasks),
        "conversations": pool.conversations,
        "vocabulary": pool.vocabulary(),
        "special": sorted(pool.used & tokenizer.special_ids),
        "examples": shown,
        "rows": packed,
    }


def task_counts(task: TaskView) -> dict[str, Any]:
    """A task's line in the page's table; lengths in tokens."""
    lengths = task.lengths if len(task) else np.zeros(1, np.int32)
    return {
        "name": short_name(task.name),
        "read": int(task.counts["read"]),
        "expected": task.expected,
        "examples": len(task),
        "truncated": int(task.counts["truncated"]),
        "dropped": dict(task.counts["dropped"]),
        "skipped": int(task.counts.get("skipped", 0)),
        "left_out": dict(task.counts.get("left_out", {})),
        "notes": [*answer_lines(task.counts.get("answers", {})), *unused_lines(task.counts)],
        "excluded": dict(task.counts.get("excluded", {})),
        "tokens": int(task.lengths.sum()),
        "loss_tokens": int(task.loss_tokens.sum()),
        "median": int(np.median(lengths)),
        "p95": int(np.percentile(lengths, 95)),
        "max": int(lengths.max()),
    }


def length_edges(longest: int) -> list[int]:
    """Bounds of the length histogram, in tokens: four to each doubling, from 8 on.

    >>> length_edges(30)
    [0, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    """
    edges, step = [0, 8], 2
    while edges[-1] <= longest:
        edges.append(edges[-1] + step)
        if edges[-1] == 8 * step:
            step *= 2
    return edges


def _length_histogram(tasks: Sequence[TaskView]) -> dict[str, Any]:
    longest = max((int(task.lengths.max()) for task in tasks if len(task)), default=0)
    edges = length_edges(longest)
    counts = [np.histogram(task.lengths, edges)[0].tolist() for task in tasks]
    return {"edges": edges, "counts": counts}


def _share_histogram(tasks: Sequence[TaskView]) -> dict[str, Any]:
    counts = []
    for task in tasks:
        shares = 100 * task.loss_tokens / np.maximum(task.lengths, 1)
        counts.append(np.histogram(shares, SHARE_EDGES)[0].tolist())
    return {"edges": list(SHARE_EDGES), "counts": counts}


class _Pool:
    """The conversations of a page, each once, and the tokens that occur in them."""

    def __init__(self, tokenizer: Tokenizer, tasks: Sequence[str]) -> None:
        self.maker = PieceMaker(tokenizer)
        self.tasks = {name: number for number, name in enumerate(tasks)}
        self.conversations: list[dict[str, Any]] = []
        self.used: set[int] = set()
        self._known: dict[tuple[str, str], int] = {}

    def add(self, shown: ExampleView) -> int:
        """The number of this conversation among the page's."""
        key = (shown.task, shown.id)
        if key not in self._known:
            self._known[key] = len(self.conversations)
            self.conversations.append(self._conversation(shown))
        return self._known[key]

    def vocabulary(self) -> dict[str, list[str]]:
        """Of each id that occurs its piece and its text."""
        piece, text = self.maker.tokenizer.piece, self.maker.text_of
        return {str(token): [piece(token), text(token)] for token in sorted(self.used)}

    def _conversation(self, shown: ExampleView) -> dict[str, Any]:
        ids = shown.tokens.tolist()
        self.used.update(ids)
        pieces = self.maker.pieces(shown.tokens, shown.loss_mask)
        own = [
            [piece.start, piece.stop - piece.start, piece.text]
            for piece in pieces
            if piece.stop - piece.start > 1 or piece.text != self.maker.text_of(ids[piece.start])
        ]
        return {
            "task": self.tasks[shown.task],
            "id": shown.id,
            "roles": shown.roles,
            "tokens": ids,
            "mask": mask_runs(shown.loss_mask),
            "groups": own,
            "truncated": shown.truncated,
            "dropped": shown.dropped,
        }


def mask_runs(loss_mask: np.ndarray) -> list[int]:
    """The lengths of the mask's runs by turns, untrained first (and of no token where need be).

    >>> mask_runs(np.array([False, False, True, True, True, False]))
    [2, 3, 1]
    >>> mask_runs(np.array([True]))
    [0, 1]
    """
    mask = np.asarray(loss_mask, dtype=bool)
    changes = np.flatnonzero(np.diff(np.concatenate([[False], mask]))).tolist()
    bounds = [0, *changes, len(mask)]
    return [b - a for a, b in itertools.pairwise(bounds)]
