"""How much memory a device needs, from shapes alone: nothing is compiled or allocated.

State and gradients are exact. Activations are counted from what the backward pass keeps; what a
compiler adds for its own ends is not known here, so the sum is an estimate: see
`tests/plan/test_budget.py` for how close it comes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from tulu_jax.axes import SEQUENCE_AXIS
from tulu_jax.models import LlamaConfig
from tulu_jax.models.config import attention_kernel
from tulu_jax.ops.cross_entropy import CHUNK
from tulu_jax.plan.planned import PlannedRun

FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class Budget:
    """Bytes on one device in a training step."""

    weights: float
    """What is trained, float32."""
    frozen: float
    """With LoRA, the weights beside it."""
    optimizer: float
    gradients: float
    copies: float
    """Weights in the compute dtype: all that lie here, and two layers gathered from all shards."""
    kept: float
    """Activations that wait for the backward pass."""
    working: float
    """Activations and their gradients while one layer is worked on."""
    loss: float
    """Head, its gradient, and the logits of one chunk of positions."""

    @property
    def arguments(self) -> float:
        """Bytes that lie there between steps."""
        return self.weights + self.frozen + self.optimizer

    @property
    def total(self) -> float:
        """Bytes at the fullest moment: loss and a layer's work are not done at once."""
        return (
            self.arguments + self.gradients + self.copies + self.kept
            + max(self.working, self.loss)
        )  # fmt: skip


def memory_budget(run: PlannedRun) -> Budget:
    """The estimated bytes of a training step on each device."""
    compute, lora = run.config.compute, run.config.lora
    state = run.state()
    trained = _local_bytes(state.params)
    micro = run.config.micro_batches
    bytes_each = jnp.dtype(compute.dtype).itemsize
    width = activations(run)
    parts = run.mesh_size()
    # Between layers activations are split over the sequence only, within a layer over heads too.
    between = run.positions * run.model.d_model * bytes_each
    within = run.positions * width.layer * bytes_each / parts
    return Budget(
        weights=trained,
        frozen=sum(map(_local_bytes, run.frozen())),
        optimizer=_local_bytes(state.opt_state) + _local_bytes(state.step),
        gradients=trained * (1 if micro == 1 else 2),
        copies=_copies(run, bytes_each) if lora is None or bytes_each < FLOAT32 else 0,
        kept=run.model.num_layers
        * (between * width.kept_between + run.positions * width.kept_within * bytes_each / parts),
        working=2 * within + 4 * between,
        loss=_loss_bytes(run, bytes_each),
    )


@dataclasses.dataclass(frozen=True)
class Activations:
    """Numbers of one layer's activations for each position."""

    layer: float
    """All that its backward pass reads, heads and channels of all devices together."""
    kept_between: float
    """Kept from forward to backward, in units of d_model: what is not split over `tensor`."""
    kept_within: float
    """Kept from forward to backward, of what is split over `tensor`."""


def activations(run: PlannedRun) -> Activations:
    """What a layer makes and what is kept of it, by the run's policy of recomputation.

    A LLaMA layer of width 8, heads 2 x 4, feed-forward 16 makes queries, keys and values twice
    (before and after turning, 8 each but values once), the mixed values, and gate, up and their
    product: 8 x 5 + 8 + 16 x 4 = 112 numbers a position, besides what attention keeps.
    """
    config, length = run.model, run.config.data.length
    heads = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    gated = isinstance(config, LlamaConfig)
    attention = 2 * heads + 3 * keys
    mixed = heads
    feed_forward = config.d_ff * (4 if gated else 2)
    scores = config.num_heads * length * 5 / 8 if _keeps_scores(run) else config.num_heads
    layer = attention + mixed + feed_forward + scores
    kept = {
        "none": (4.0, layer),
        "full": (1.0, 0.0),
        "minimal": (3.0, heads + 2 * keys + mixed + config.d_ff * (2 if gated else 1)),
        "dots": (3.0, heads + 2 * keys + mixed + config.d_ff * (2 if gated else 1)),
        "attention": (1.0, mixed + config.num_heads),
    }
    between, within = kept.get(run.config.compute.remat, kept["none"])
    return Activations(layer, between, within)


def _keeps_scores(run: PlannedRun) -> bool:
    """Whether attention keeps a row of scores for each query, as all but flash kernels do."""
    kernel = attention_kernel(run.config.compute, run.layout.mesh)
    return kernel.name in ("dense", "blockwise")


def _copies(run: PlannedRun, bytes_each: int) -> float:
    """Weights in the compute dtype; in float32 only those gathered from other devices."""
    shards = math.prod(run.mesh_size(axis) for axis in ("fsdp", SEQUENCE_AXIS))
    parts = run.mesh_size()
    layer = run.model.num_layer_matmul_params * bytes_each / parts
    cast = 0.0
    if bytes_each < FLOAT32:
        cast = run.model.num_layers * layer / shards
    return cast + (2 * layer if shards > 1 else 0)


def _loss_bytes(run: PlannedRun, bytes_each: int) -> float:
    """Head and its float32 gradient, gathered, and three float32 arrays of a chunk's logits."""
    parts = run.mesh_size()
    split = parts if run.model.vocab_size % parts == 0 else 1
    columns = run.model.vocab_size / split
    chunk = min(CHUNK, max(run.positions, 1))
    head = columns * run.model.embedding_width
    return head * (bytes_each + FLOAT32) + 3 * chunk * columns * FLOAT32


def _local_bytes(tree: Any) -> float:
    """Bytes of the largest shard of every array, summed."""
    leaves = jax.tree.leaves(tree)
    return float(sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves))
