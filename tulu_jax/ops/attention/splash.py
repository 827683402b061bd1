"""Splash attention: the Pallas flash kernel for TPU that skips what causality hides."""

from __future__ import annotations

from typing import Any

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mha,
)
from jaxtyping import Array, Float, Int

from tulu_jax.ops.attention.masks import RESIDUALS
from tulu_jax.ops.attention.sharded import pad_to

LANES = 128
"""Width of a TPU register: lengths and head widths are padded to multiples of it."""

LARGEST_BLOCK = 512
"""Queries, and keys, that are worked on at a time."""


def splash_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """`attend` for training rows on one TPU; `interpret` runs it on any device, slowly.

    Padding is a conversation of its own (segment 0), so that no row of the softmax is empty. Rows
    and heads that are not multiples of 128 are padded with zeros, which changes no result and, as
    a TPU lays arrays out in tiles 128 wide, hardly costs anything.

    Differs from dense: queries are scaled before the product, which rounds them once more.
    """
    length, heads, width = query.shape[1:]
    query = query * width**-0.5
    kernel = _kernel(heads, length + -length % LANES, interpret)
    query, key, value = (_heads_first(x) for x in (query, key, value))
    segments = pad_to(segments, LANES, 1)
    mixed: Any = jax.vmap(kernel)(query, key, value, SegmentIds(segments, segments))
    return mixed.transpose(0, 2, 1, 3)[:, :length, :, :width]


def _heads_first(x: Float[Array, "B T heads H"]) -> Float[Array, "B heads T2 H2"]:
    padded = pad_to(pad_to(x, LANES, 1), LANES, 3)
    return padded.transpose(0, 2, 1, 3)


def _kernel(heads: int, length: int, interpret: bool):  # noqa: ANN202
    """The kernel for `heads` query heads and rows of `length`, a multiple of 128."""
    sizes = range(LARGEST_BLOCK, 0, -LANES)
    block = next(size for size in sizes if length % size == 0)
    return make_splash_mha(
        MultiHeadMask([CausalMask((length, length))] * heads),
        block_sizes=BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )
