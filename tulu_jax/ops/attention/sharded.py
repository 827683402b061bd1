"""Kernels that the compiler cannot split, run by every device on its own rows and heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from tulu_jax.axes import BATCH_AXES, SEQUENCE_AXIS, TENSOR_AXIS

RowKernel = Callable[[Array, Array, Array, Array], Array]
"""(query [B, T, N, H], key and value [B, T, K, H], segments [B, T]) -> [B, T, N, H]: training rows,
whose slots are 0 .. T-1."""


def per_shard(
    kernel: RowKernel,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    segments: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """`kernel` over the mesh in force: each device has whole rows, of some heads.

    Where a row's positions are split over devices (`sequence`), they exchange positions for heads
    and back: every device then has the same work, which causality would deny to parts of a row.
    If there are too few heads for that, each of those devices does the work of all; and so it is
    with rows too few to be split (the one row of an initialisation).

    Key heads are repeated as often as it takes to split them: with 2 key heads over 4 shards each
    head goes to two of them. Without a mesh it is the plain call.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel(query, key, value, segments)
    axes = (SEQUENCE_AXIS, TENSOR_AXIS)
    if query.shape[2] % math.prod(mesh.shape[axis] for axis in axes):
        axes = (TENSOR_AXIS,)
    times = repeats(key.shape[2], math.prod(mesh.shape[axis] for axis in axes))
    if times > 1:
        key, value = (jnp.repeat(x, times, axis=2) for x in (key, value))
    split = query.shape[0] % math.prod(mesh.shape[axis] for axis in BATCH_AXES) == 0
    rows = BATCH_AXES if split else None
    heads = P(rows, None, axes, None)
    # check_vma: Pallas calls do not say over which axes their results vary.
    mapped = jax.shard_map(
        kernel,
        in_specs=(heads, heads, heads, P(rows, None)),
        out_specs=heads,
        check_vma=False,
    )
    return mapped(query, key, value, segments)


def repeats(kv_heads: int, shards: int) -> int:
    """The least number of copies of each key head with which `shards` divides their number.

    kv_heads  8  2  3
    shards    4  4  2
    repeats   1  2  2
    """
    return math.lcm(kv_heads, shards) // kv_heads


def pad_to(x: Array, multiple: int, axis: int) -> Array:
    """`x` with zeros after its end along `axis`, up to a multiple of `multiple`."""
    missing = -x.shape[axis] % multiple
    widths = [(0, missing if at == axis else 0) for at in range(x.ndim)]
    return jnp.pad(x, widths) if missing else x
