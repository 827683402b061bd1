"""Flash kernels for NVIDIA GPUs, each told of conversations in the way it understands."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float, Int

from tulu_jax.ops.attention.masks import same_segment
from tulu_jax.ops.attention.sharded import pad_to

CUDNN_MULTIPLE = 8
"""cuDNN's head widths are multiples of this; rows are padded to an even length."""


def cudnn_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """`attend` for training rows by cuDNN's flash attention: bfloat16 or float16.

    cuDNN hides what comes later itself; conversations are told apart by a [B, 1, T, T] mask in
    the compute dtype, the same for all heads (8 MB a row of 2,048). It lowers the score of a pair
    of two conversations by 2^41, so that its weight is exactly 0. Padding is a conversation of its
    own, so that no row of the softmax is empty.
    """
    length, width = query.shape[1], query.shape[3]
    scale = width**-0.5
    query, key, value = (pad_to(pad_to(x, 2, 1), CUDNN_MULTIPLE, 3) for x in (query, key, value))
    segments = pad_to(segments, 2, 1)
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=same_segment(segments, segments)[:, None],
        scale=scale,
        is_causal=True,
        implementation="cudnn",
    )
    return mixed[:, :length, :, :width]


def tokamax_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
    *,
    implementation: Any = ("mosaic", "triton"),
) -> Float[Array, "B T N H"]:
    """`attend` for training rows by tokamax (not a dependency): its Mosaic or Triton kernel.

    Conversations are told apart by a mask, as for cuDNN.
    """
    import tokamax  # pyright: ignore[reportMissingImports]

    return tokamax.dot_product_attention(
        query,
        key,
        value,
        mask=same_segment(segments, segments)[:, None],
        is_causal=True,
        implementation=implementation,
    )
