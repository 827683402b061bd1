"""The reference: scores of all pairs at once, gradients by JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tulu_jax.ops.attention.masks import MASKED, visible


def dense_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_slots: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """`attend`, with a [B, N, T, S] array of float32 scores: what every kernel is compared with."""
    batch, length, heads, width = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, width)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, key, preferred_element_type=jnp.float32)
    mask = visible(query_segments, key_segments, query_slots)[:, None, None]
    weights = jax.nn.softmax(jnp.where(mask, scores * width**-0.5, MASKED), axis=-1)
    mixed = jnp.einsum(
        "BKGTS,BSKH->BTKGH", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    return mixed.astype(value.dtype).reshape(batch, length, heads, width)


def dense_rows(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """`dense_attention` for training rows, whose keys stand where their queries do."""
    slots = jnp.broadcast_to(jnp.arange(segments.shape[1]), segments.shape)
    return dense_attention(query, key, value, segments, segments, slots)
