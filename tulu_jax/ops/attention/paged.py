"""Attention of one token of every row on TPU, by JAX's Pallas kernel for paged caches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from tulu_jax.axes import TENSOR_AXIS
from tulu_jax.ops.attention.cached import BLOCK, Blocks, LayerCache
from tulu_jax.ops.attention.choice import device_kind

LANES = 128
"""The kernel takes heads whose width is a multiple of this; 64 and 80 do not compile."""
LARGEST_PAGE = 4 * BLOCK
"""Slots that are fetched at once, at most."""
TWO_CORES = ("TPU v4", "TPU v5", "TPU v5p")
"""Kinds of devices that are two cores, which then share the rows."""


def paged_rows(
    query: Float[Array, "B N H"],
    cache: LayerCache,
    slots: Int[Array, " B"],
    alive: Bool[Array, " B"],
    _: Blocks | None = None,
) -> Float[Array, "B N H"]:
    """`row_by_row` in bfloat16 by the kernel, which reads of each row no more than it holds.

    Over a mesh each device has its share of the heads.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return _paged(query, cache, slots, alive)
    heads, cached = P(None, TENSOR_AXIS, None), P(None, TENSOR_AXIS, None, None)
    specs: Any = (heads, (cached, cached), P(None), P(None))
    # check_vma: Pallas calls do not say over which axes their results vary.
    mapped = jax.shard_map(
        lambda query, cache, *rows: _paged(query, LayerCache(*cache), *rows),
        in_specs=specs,
        out_specs=heads,
        check_vma=False,
    )
    return mapped(query, tuple(cache), slots, alive)


def _paged(query: Array, cache: LayerCache, slots: Array, alive: Array) -> Array:
    """A row's keys of one head are a sequence to the kernel, whose pages are neighbours.

    So the cache is taken as it lies, and any number of heads is: as heads of one sequence the
    kernel wants them before the rows, and other kernels refuse 52, 26, 20, 13 and 10 of them.

    The kernel does not scale scores, and rounds keys and values of any dtype to bfloat16.
    """
    batch, heads, width = query.shape
    kv_heads, length = cache.key.shape[1:3]
    page = page_size(length)
    sequences, pages = batch * kv_heads, length // page
    keys, values = (one.reshape(1, sequences * pages, page, width) for one in cache)
    table = jnp.arange(sequences * pages, dtype=jnp.int32).reshape(sequences, pages)
    lengths = jnp.repeat(jnp.where(alive, slots + 1, 1).astype(jnp.int32), kv_heads)
    even = sequences % 2 == 0
    mixed = paged_attention(
        (query * width**-0.5).reshape(sequences, heads // kv_heads, width),
        keys,
        values,
        lengths,
        table,
        pages_per_compute_block=1,
        megacore_mode="batch" if even and device_kind() in TWO_CORES else None,
    )
    return jnp.where(alive[:, None, None], mixed.reshape(query.shape), 0)


def page_size(length: int) -> int:
    """The largest number of slots up to `LARGEST_PAGE` that a row's slots are pages of.

    >>> page_size(20 * BLOCK) // BLOCK, page_size(19 * BLOCK) // BLOCK
    (4, 1)
    """
    return max(size for size in range(BLOCK, LARGEST_PAGE + 1, BLOCK) if length % size == 0)
