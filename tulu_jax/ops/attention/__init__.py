"""Causal attention that never looks across conversations, by the kernel that fits the devices."""

from __future__ import annotations

from jaxtyping import Array, Float, Int

from tulu_jax.ops.attention.blockwise import blockwise_attention
from tulu_jax.ops.attention.choice import Choice, choose_kernel, platform_of
from tulu_jax.ops.attention.dense import dense_attention
from tulu_jax.ops.attention.kernels import KERNELS
from tulu_jax.ops.attention.masks import RESIDUALS, visible
from tulu_jax.ops.attention.sharded import per_shard

__all__ = ["KERNELS", "RESIDUALS", "Choice", "attend", "choose_kernel", "platform_of", "visible"]


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    query_slots: Int[Array, "B T"] | None = None,
    *,
    kernel: str = "blockwise",
) -> Float[Array, "B T N H"]:
    """Softmax attention over the visible keys; each of K key heads serves N / K query heads.

    Softmax is float32. Padding queries get the mean of some values: never read, but finite.

    Differs from HF: nothing in float32; in bfloat16 the scores stay float32 here.

    Args:
      query: one vector a token and head.
      key: of training rows, or of all slots of a cache.
      value: as `key`.
      query_segments: conversation of each query, 0 for padding.
      key_segments: conversation of each key slot, 0 for padding or a cache slot not yet written.
      query_slots: the key slot that each query itself occupies, when keys are those of a cache;
        if T = S it must be 0 .. T-1. None for training rows: keys stand where their queries do.
      kernel: a name from `choose_kernel`; with a cache `dense` or `blockwise`.

    Source: Vaswani et al. 2017, arXiv 1706.03762; Ainslie et al. 2023, arXiv 2305.13245 (grouped).
    """
    if query_slots is None:
        return per_shard(KERNELS[kernel].load(), query, key, value, query_segments)
    run = dense_attention if kernel == "dense" else blockwise_attention
    return run(query, key, value, query_segments, key_segments, query_slots)
