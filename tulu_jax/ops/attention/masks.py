"""Masks of the keys that each query may see."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

MASKED = -1e30
"""Score of a pair that may not be seen: finite, so that a row of padding stays free of NaN."""

RESIDUALS = "attention_residuals"
"""Name, for remat policies, of what a kernel's gradient needs besides query, key and value."""


def visible(
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_slots: Int[Array, "B T"],
) -> Bool[Array, "B T S"]:
    """The key slots each query may see: its own conversation, itself and what came before.

    Segment 0 is padding and sees nothing. A packed row of two conversations and one pad, with
    query_slots = 0 1 2 3 4 5:

        segment  1 1 2 2 2 0
        slot 0   x . . . . .
        slot 1   x x . . . .
        slot 2   . . x . . .
        slot 3   . . x x . .
        slot 4   . . x x x .
        slot 5   . . . . . .

    Args:
      query_segments: conversation of each query, 0 for padding.
      key_segments: conversation of each key slot, 0 for padding or a cache slot not yet written.
      query_slots: the key slot that each query itself occupies.
    """
    slots = jnp.arange(key_segments.shape[1])
    causal = slots[None, None, :] <= query_slots[:, :, None]
    return causal & same_segment(query_segments, key_segments) & (query_segments > 0)[:, :, None]


def same_segment(
    query_segments: Int[Array, "B T"], key_segments: Int[Array, "B S"]
) -> Bool[Array, "B T S"]:
    """Pairs of one segment, padding with padding too, whatever their order.

    segment  1 2 0
    slot 0   x . .
    slot 1   . x .
    slot 2   . . x
    """
    return query_segments[:, :, None] == key_segments[:, None, :]
