"""The start-up probe: two conversations packed in one row must train as if they lay apart.

Attention kernels that ignore segment ids fail silently: the loss still falls. So before a run
starts, a one-layer model with the run's head shapes, dtype, kernel and mesh is fed two
conversations both ways, and final states, loss and gradients are compared. A flash kernel is
compared with the dense reference besides.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tulu_jax.axes import BATCH_KEYS, TENSOR_AXIS, Batch
from tulu_jax.errors import GuardError
from tulu_jax.models import ComputeConfig, ModelConfig, hidden_states, init_params
from tulu_jax.models.config import attention_kernel
from tulu_jax.ops import attend
from tulu_jax.ops.attention import platform_of
from tulu_jax.parallel.rules import Layout, layout_for
from tulu_jax.train.loss import loss_weights, targets_and_mask, weighted_loss

ROW = 16
"""Tokens of the packed row for kernels of XLA, which work by masks alone."""

FLASH_ROW = 1024
"""The same for flash kernels: two blocks of splash, with the border inside the first."""

EXACT = 1e-4
ROUNDED = 5e-2
"""Largest difference allowed, relative to the largest value: in float32 on CPU, and where products
are rounded (bfloat16; float32 on TPU and GPU, whose default is less). Kernels that leak are off
by ~1."""


NOISE = 1e-3
"""Of the largest gradient: an array that is smaller throughout may be all rounding."""


def probe_packing(config: ModelConfig, layout: Layout, *, compute: ComputeConfig) -> float:
    """The largest relative difference between packed and apart; refuses one above the tolerance.

    Raises:
      GuardError: packed conversations see each other (or positions do not restart), or the kernel
        computes something else than attention.
      ConfigError: the kernel asked for cannot run on these devices.
    """
    kernel = attention_kernel(compute, layout.mesh).name
    flash = kernel not in ("dense", "blockwise")
    length = FLASH_ROW if flash else ROW
    small = dataclasses.replace(
        config,
        vocab_size=64,
        num_layers=1,
        d_ff=2 * layout.mesh.shape[TENSOR_AXIS],
        max_length=length,
    )
    compute = dataclasses.replace(compute, unroll_layers=1)
    layout = layout_for(small, layout.mesh, rules=layout.overrides)
    packed, apart = _two_ways(layout.num_row_shards, length)
    exact = compute.dtype == "float32" and platform_of(layout.mesh) == "cpu"
    bound = EXACT if exact else ROUNDED
    with layout.activate():
        # Weights are an argument, since a program cannot close over arrays on several hosts.
        params = jax.jit(_large_params, static_argnums=0)(small)
        run = jax.jit(partial(_outputs, small, compute), out_shardings=layout.replicated)
        together, separate = jax.device_get((run(params, packed), run(params, apart)))
        if flash:
            got, expected = (
                _attention_alone(small, layout, compute.dtype, packed["segment_ids"], name)
                for name in (kernel, "dense")
            )
            _compare(got, expected, bound, f"attention kernel {kernel} is wrong", "")
    together["states"] = _join(together["states"], packed)
    separate["states"] = _join(separate["states"], apart)
    return _compare(
        together,
        separate,
        bound,
        "packed conversations do not train as they would apart",
        " or set PACKING='padded'",
    )


def _attention_alone(
    config: ModelConfig, layout: Layout, dtype: str, segments: np.ndarray, kernel: str
) -> dict[str, Any]:
    """Result and gradients of attention on normal inputs of the model's head shapes."""

    def run() -> dict[str, Any]:
        keys = iter(jax.random.split(jax.random.key(0), 4))
        ids = jnp.asarray(segments)
        real = (ids > 0)[..., None, None]  # of padding nothing is read, and kernels differ there

        def normal(heads: int) -> Array:
            shape = (*segments.shape, heads, config.head_dim)
            return jax.random.normal(next(keys), shape, jnp.float32).astype(dtype)

        arrays = normal(config.num_heads), *(normal(config.num_kv_heads) for _ in range(2))
        pull = normal(config.num_heads) * real

        def loss(arrays: tuple[Array, ...]) -> tuple[Array, Array]:
            query, key, value = arrays
            mixed = attend(query, key, value, ids, ids, kernel=kernel) * real
            return jnp.sum((mixed * pull).astype(jnp.float32)), mixed

        (total, mixed), gradients = jax.value_and_grad(loss, has_aux=True)(arrays)
        outputs = {"states": mixed, "loss": total, "gradients": gradients}
        return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)

    return jax.device_get(jax.jit(run, out_shardings=layout.replicated)())


def _compare(
    got: dict[str, Any], expected: dict[str, Any], bound: float, wrong: str, way_out: str
) -> float:
    """The largest relative difference of what two runs gave.

    Raises:
      GuardError: it is above `bound`.
    """
    worst = 0.0
    for name in ("states", "loss", "gradients"):
        difference = _relative(got[name], expected[name])
        if not difference <= bound:
            raise GuardError(
                f"{wrong}: {name} differ",
                got=f"relative difference {difference:.2g}",
                expected=f"at most {bound:g}",
                do=f"set another ATTENTION (`dense` runs anywhere),{way_out}".rstrip(","),
            )
        worst = max(worst, difference)
    return worst


def _large_params(config: ModelConfig) -> Any:
    """Fresh weights times 10: the usual size makes attention nearly uniform and hides a leak."""
    return jax.tree.map(lambda weight: weight * 10, init_params(config, jax.random.key(0)))


def _two_ways(row_shards: int, length: int) -> tuple[Batch, Batch]:
    """The same two conversations in one row, and in one row each; padded to full batches."""
    rng = np.random.default_rng(0)
    first = length * 7 // 16
    conversations = [rng.integers(3, 64, part) for part in (first, length - first)]
    rows = -(-2 // row_shards) * row_shards
    packed, apart = _empty(rows, length), _empty(rows, length)
    start = 0
    for number, conversation in enumerate(conversations):
        _put(packed, 0, start, conversation, number + 1)
        _put(apart, number, 0, conversation, 1)
        start += len(conversation)
    return packed, apart


def _empty(rows: int, length: int) -> Batch:
    return {name: np.zeros((rows, length), np.int32) for name in BATCH_KEYS}


def _put(batch: Batch, row: int, start: int, tokens: np.ndarray, segment: int) -> None:
    place = (row, slice(start, start + len(tokens)))
    batch["tokens"][place] = tokens
    batch["segment_ids"][place] = segment
    batch["positions"][place] = np.arange(len(tokens))
    batch["loss_mask"][row, start + 2 : start + len(tokens)] = 1


def _outputs(
    config: ModelConfig, compute: ComputeConfig, params: Any, batch: Batch
) -> dict[str, Any]:
    batch = jax.tree.map(jnp.asarray, batch)
    _, mask = targets_and_mask(batch)
    weights = loss_weights(mask, normalization="token", paper_rows=1)
    loss, gradients = jax.value_and_grad(weighted_loss, argnums=2)(
        config, compute, params, batch, weights
    )
    states = hidden_states(
        config, params, batch["tokens"], batch["segment_ids"], batch["positions"], compute=compute
    )
    return {"states": states.astype(jnp.float32), "loss": loss, "gradients": gradients}


def _join(states: np.ndarray, batch: Batch) -> np.ndarray:
    """States of all real tokens, in the order of the conversations."""
    return states[batch["segment_ids"] > 0]


def _relative(left: Any, right: Any) -> float:
    """Largest difference of two trees, relative to the largest value of its array.

    An array whose values are next to nothing beside the others' is measured by those: the gradient
    of a bias of keys is 0 but for roundings (attention does not change when all keys do), and
    roundings are never alike.
    """
    pairs = list(zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))
    sizes = [np.max(np.abs(b)) for _, b in pairs]
    least = NOISE * np.max(sizes) + 1e-30
    differences = [
        np.max(np.abs(a - b)) / np.maximum(size, least)
        for (a, b), size in zip(pairs, sizes, strict=True)
    ]
    return float(np.max(differences))  # NumPy's maximum keeps a NaN; Python's may lose it.
