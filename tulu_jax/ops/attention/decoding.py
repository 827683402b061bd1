"""The attention kernels of decoding, by name: one token of every row over the cache.

Whichever runs, what a row gets follows from the row alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tulu_jax.axes import TENSOR_AXIS
from tulu_jax.ops.attention.cached import BLOCK, Blocks, LayerCache, row_by_row, rows_at_once
from tulu_jax.ops.attention.choice import Choice, mesh_in_force, platform_of

RowsKernel = Callable[[Array, LayerCache, Array, Array, Blocks | None], Array]
"""(query [B, N, H], cache, slots [B], alive [B], what rows have alike) -> [B, N, H]."""

DECODE_KERNELS: dict[str, RowsKernel | str] = {
    "rows": row_by_row,
    "dense": rows_at_once,
    "paged": "paged:paged_rows",
}
"""By name: the function, or `module:function`, imported when asked for."""

ROUNDED = 0.02
"""Largest difference of the probe, whose results are about 1 at most, from float32: bfloat16 has
steps of 0.004 there."""


class Heads(NamedTuple):
    """The heads of a model's attention."""

    query: int
    kv: int
    width: int


def attend_tokens(
    query: Float[Array, "B N H"],
    cache: LayerCache,
    slots: Int[Array, " B"],
    alive: Bool[Array, " B"],
    blocks: Blocks | None = None,
    *,
    kernel: str = "rows",
) -> Float[Array, "B N H"]:
    """Each row's mix of its values up to its slot; zeros for rows not alive.

    `blocks` say what the rows have alike, to a kernel that makes use of it: "rows".
    """
    return _load(kernel)(query, cache, slots, alive, blocks)


def _load(name: str) -> RowsKernel:
    found = DECODE_KERNELS[name]
    if not isinstance(found, str):
        return found
    module, function = found.split(":")
    return getattr(importlib.import_module(f"tulu_jax.ops.attention.{module}"), function)


def choose_decode_kernel(heads: Heads, dtype: str) -> Choice:
    """The kernel for heads of that kind on the devices of the mesh in force, or those JAX has.

    On CPU rows one by one, on TPU pages where the kernel takes the heads, else rows at once.
    """
    platform = platform_of()
    if platform == "cpu":
        return Choice("rows", "on cpu, each row its own blocks")
    if platform != "tpu":
        return Choice("dense", f"on {platform}, all rows at once")
    shards = mesh_in_force().shape.get(TENSOR_AXIS, 1)
    if dtype != "bfloat16":
        return Choice("dense", f"the paged kernel would round {dtype} to bfloat16")
    if heads.width % 128:
        return Choice("dense", f"the paged kernel does not take heads of {heads.width} channels")
    if heads.kv % shards:
        return Choice("dense", f"{heads.kv} key heads do not divide over tensor={shards}")
    return Choice("paged", "the paged kernel for TPU")


def probed(choice: Choice, heads: Heads, dtype: str) -> Choice:
    """`choice`, if it computes attention on the devices at hand; else rows at once, and why."""
    if choice.name in ("rows", "dense"):
        return choice
    try:
        difference = probe(choice.name, heads, dtype)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        return Choice("dense", f"the {choice.name} kernel does not run here: {reason}")
    if not difference <= ROUNDED:
        return Choice("dense", f"the {choice.name} kernel is {difference:.2g} off here")
    return choice


def probe(name: str, heads: Heads, dtype: str) -> float:
    """The largest difference of a kernel from rows one by one in float32, on normal inputs.

    Rows end in the first block, at its end, behind it, and at the end of the cache; one is not
    alive.
    """
    length = 8 * BLOCK
    slots = jnp.asarray([3, BLOCK - 1, BLOCK, 5 * BLOCK + 7, length - 1, 9], jnp.int32)
    alive = jnp.arange(slots.size) < slots.size - 1
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (slots.size, heads.kv, length, heads.width)
    cache = LayerCache(*(jax.random.normal(key, shape).astype(dtype) for key in keys[:2]))
    query = jax.random.normal(keys[2], (slots.size, heads.query, heads.width)).astype(dtype)
    got = jax.jit(_load(name))(query, cache, slots, alive, None)
    exact = LayerCache(*(one.astype(jnp.float32) for one in cache))
    expected = jax.jit(row_by_row)(query.astype(jnp.float32), exact, slots, alive)
    return float(np.abs(np.asarray(got, np.float32) - np.asarray(expected)).max())
