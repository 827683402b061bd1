"""The start-up probe: two conversations packed in one row must train as if they lay apart.

Attention kernels that ignore segment ids fail silently: the loss still falls. So before a run
starts, a one-layer model with the run's head shapes, dtype and mesh is fed two conversations both
ways, and logits, loss and gradients are compared.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tulu_jax.axes import BATCH_KEYS, Batch
from tulu_jax.errors import GuardError
from tulu_jax.models import ComputeConfig, ModelConfig, hidden_states, init_params
from tulu_jax.parallel.rules import Layout, layout_for
from tulu_jax.train.loss import loss_weights, targets_and_mask, weighted_loss

LENGTHS = (7, 9)
ROW = 16
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference allowed, relative to the largest value; kernels that leak are off by ~1."""


def probe_packing(config: ModelConfig, layout: Layout, *, compute: ComputeConfig) -> float:
    """The largest relative difference between packed and apart; refuses one above the tolerance.

    Raises:
      GuardError: packed conversations see each other (or positions do not restart).
    """
    small = dataclasses.replace(
        config, vocab_size=64, num_layers=1, d_ff=2 * layout.mesh.shape["tensor"], max_length=ROW
    )
    compute = dataclasses.replace(compute, unroll_layers=1)
    layout = layout_for(small, layout.mesh, rules=layout.overrides)
    packed, apart = _two_ways(layout.num_row_shards)
    with layout.activate():
        # Weights are an argument, since a program cannot close over arrays on several hosts.
        run = jax.jit(partial(_outputs, small, compute), out_shardings=layout.replicated)
        params = jax.jit(_large_params, static_argnums=0)(small)
        together, separate = jax.device_get((run(params, packed), run(params, apart)))
    together["states"] = _join(together["states"], packed)
    separate["states"] = _join(separate["states"], apart)
    worst = 0.0
    for name in ("states", "loss", "gradients"):
        difference = _relative(together[name], separate[name])
        if not difference <= TOLERANCE[compute.dtype]:
            raise GuardError(
                f"packed conversations do not train as they would apart: {name} differ",
                got=f"relative difference {difference:.2g}",
                expected=f"at most {TOLERANCE[compute.dtype]:g}",
                do="this attention ignores segment ids: choose another, or set PACKING='padded'",
            )
        worst = max(worst, difference)
    return worst


def _large_params(config: ModelConfig) -> Any:
    """Fresh weights times 10: the usual size makes attention nearly uniform and hides a leak."""
    return jax.tree.map(lambda weight: weight * 10, init_params(config, jax.random.key(0)))


def _two_ways(row_shards: int) -> tuple[Batch, Batch]:
    """The same two conversations in one row, and in one row each; padded to full batches."""
    rng = np.random.default_rng(0)
    conversations = [rng.integers(3, 64, length) for length in LENGTHS]
    rows = -(-2 // row_shards) * row_shards
    packed, apart = _empty(rows), _empty(rows)
    start = 0
    for number, conversation in enumerate(conversations):
        length = len(conversation)
        _put(packed, 0, start, conversation, number + 1)
        _put(apart, number, 0, conversation, 1)
        start += length
    return packed, apart


def _empty(rows: int) -> Batch:
    return {name: np.zeros((rows, ROW), np.int32) for name in BATCH_KEYS}


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
    """Largest difference of two trees, relative to the largest value of its array."""
    differences = [
        np.max(np.abs(a - b)) / (np.max(np.abs(b)) + 1e-30)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    ]
    return float(np.max(differences))  # NumPy's maximum keeps a NaN; Python's may lose it.
