"""Held-out examples that are trained on too: their loss says how well they were learnt by heart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from tulu_jax.data.store import Store

Part = tuple[Store, Int[np.ndarray, "examples"]]
"""Some examples of a store."""
_AT_ONCE = 4096


def notes_on_measured(measured: Mapping[str, Part], trained: Sequence[Part]) -> list[str]:
    """What to say of the held-out examples of each task that are trained on too."""
    notes = []
    for task, count in trained_too(measured, trained).items():
        notes.append(
            f"held-out: {count:,} of the {len(measured[task][1]):,} examples of {task} are trained "
            "on too, token for token: their loss tells what was learnt by heart"
        )
    return notes


def trained_too(measured: Mapping[str, Part], trained: Sequence[Part]) -> dict[str, int]:
    """How many of each task's held-out examples are, tokens and mask, among those trained on.

    Tasks without any are left out. Of what is trained on only examples are read that are as long
    as a held-out one and have as many loss tokens: of the 12 tasks a few in a hundred.
    """
    wanted = {task: list(_contents(*part)) for task, part in measured.items()}
    sizes = np.unique(np.concatenate([_sizes(*part) for part in measured.values()] or [[]]))
    known = set().union(*wanted.values())
    found: set[bytes] = set()
    for store, examples in trained:
        alike = examples[np.isin(_sizes(store, examples), sizes)]
        found.update(known.intersection(_contents(store, alike)))
    counts = {task: sum(one in found for one in contents) for task, contents in wanted.items()}
    return {task: count for task, count in counts.items() if count}


def _sizes(store: Store, examples: np.ndarray) -> Int[np.ndarray, "examples"]:
    """One number for length and loss tokens of each example."""
    return (store.lengths[examples].astype(np.int64) << 32) + store.loss_tokens[examples]


def _contents(store: Store, examples: np.ndarray) -> Iterator[bytes]:
    """Tokens and mask of each example, as what can be compared: the tokens with loss negated."""
    for start in range(0, len(examples), _AT_ONCE):
        got = store.gather(examples[start : start + _AT_ONCE])
        signed = np.where(got.loss_mask, -1 - got.tokens, got.tokens).astype(np.int32)
        ends = np.cumsum(got.lengths).tolist()
        for first, last in zip([0, *ends], ends, strict=False):
            yield signed[first:last].tobytes()
