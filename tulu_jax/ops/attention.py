"""Causal attention that never looks across conversations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e30
"""Score of a pair that may not be seen: finite, so that a row of padding stays free of NaN."""


def visible(
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_slots: Int[Array, "B T"],
) -> Bool[Array, "B T S"]:
    """Which key slots each query may see: its own conversation, itself and what came before.

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
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return causal & same & (query_segments > 0)[:, :, None]


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_slots: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Softmax attention over the visible keys; each of K key heads serves N / K query heads.

    This dense form is the reference every faster kernel is tested against. Scores and softmax are
    float32. Padding queries get the mean of all values: never read, but finite.

    Differs from HF: nothing in float32; in bfloat16 the scores stay float32 here.

    Source: Vaswani et al. 2017, arXiv 1706.03762; Ainslie et al. 2023, arXiv 2305.13245 (grouped).
    """
    batch, length, heads, width = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, width)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, key, preferred_element_type=jnp.float32)
    mask = visible(query_segments, key_segments, query_slots)[:, None, None]
    scores = jnp.where(mask, scores * width**-0.5, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    mixed = jnp.einsum("BKGTS,BSKH->BTKGH", weights, value)
    return mixed.reshape(batch, length, heads, width)
