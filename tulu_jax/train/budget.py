"""How much memory a device needs, from shapes alone: nothing is compiled or allocated.

State and gradients are exact. Activations are counted from what the backward pass keeps; what a
compiler adds for its own ends is not known here, so the sum is an estimate, within some 15 % of
what the TPU compiler says for LLaMAs of 7B to 65B (benchmarks/RESULTS.md), 20 % where nothing is
recomputed. `tulu plan` compiles.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from tulu_jax.axes import SEQUENCE_AXIS, TENSOR_AXIS
from tulu_jax.models import layer_matrices
from tulu_jax.models.config import attention_kernel
from tulu_jax.models.remat import PRODUCTS, kept_names, split_names
from tulu_jax.ops.attention import KERNELS
from tulu_jax.ops.cross_entropy import chunk_size
from tulu_jax.parallel.rules import num_parts
from tulu_jax.train.run import RunPlan

FLOAT32 = 4
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Budget:
    """Bytes on one device in a training step."""

    weights: float
    """What is trained, float32."""
    frozen: float
    """With adapters, the weights beside them."""
    optimizer: float
    gradients: float
    copies: float
    """Weights in the compute dtype: two layers gathered from all shards, and, but on TPUs, whose
    compiler is told not to (`train.step.TPU_OPTIONS`), all that lie here."""
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


def memory_budget(run: RunPlan, *, like: Budget | None = None) -> Budget:
    """The estimated bytes of a training step on each device.

    `like`, the budget of a run with the same model and mesh, saves counting the state again.
    """
    compute = run.config.compute
    trained, frozen, moments = _state_bytes(run, like)
    micro = run.config.micro_batches
    bytes_each = jnp.dtype(compute.dtype).itemsize
    width, positions = activations(run), run.positions
    parts = run.layout.mesh.shape[TENSOR_AXIS]
    # Between layers activations are split as their length is, within a layer over heads too.
    mesh = run.layout.mesh
    split = num_parts(dict(run.layout.rules)["activation_length"], mesh) / mesh.shape[SEQUENCE_AXIS]
    between = positions * run.model.d_model * bytes_each / split
    within = positions * width.layer * bytes_each / parts
    return Budget(
        weights=trained,
        frozen=frozen,
        optimizer=moments,
        gradients=trained * (1 if micro == 1 else 2),
        copies=_copies(run, bytes_each),
        kept=run.model.num_layers
        * (between * width.kept_between + positions * width.kept_within * bytes_each / parts),
        working=2 * within + 4 * between,
        loss=_loss_bytes(run, bytes_each),
    )


def _state_bytes(run: RunPlan, like: Budget | None) -> tuple[float, float, float]:
    """Bytes of what is trained, of what is frozen, and of the optimizer."""
    if like is not None:
        return like.weights, like.frozen, like.optimizer
    state = run.state()
    return (
        _local_bytes(state.params),
        sum(map(_local_bytes, run.frozen())),
        _local_bytes(state.opt_state) + _local_bytes(state.step),
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
    recomputed_weights: float
    """Weights of the layer whose products the backward pass makes again."""
    recomputes_attention: bool


def activations(run: RunPlan) -> Activations:
    """What a layer makes and what is kept of it, by the run's policy of recomputation.

    A LLaMA layer of width 8, heads 2 x 4, feed-forward 16 makes queries, keys and values twice
    (before and after turning, 8 each but values once), the mixed values, and gate, its silu, up and
    their product: 8 x 5 + 8 + 16 x 4 = 112 numbers a position, besides what attention keeps. All
    but silu are kept if nothing is made again (`ops.silu_gate`). Sizes are those of the layer's
    matrices as its family declares them; the product of one that is not in `remat.PRODUCTS` is
    kept by `none` alone.
    """
    config, compute = run.model, run.config.compute
    heads, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    # All kernels but flash keep a row of scores for each query.
    kernel = KERNELS[attention_kernel(compute, run.layout.mesh).name]
    scores = config.num_heads * (run.config.data.length * 5 / 8 if kernel.keeps_scores else 2)
    matrices = layer_matrices(config)
    # What leads back to the model's width is added to what goes between layers.
    joined, down = matrices.pop("attention/out"), matrices.pop("mlp/down")
    made = {PRODUCTS.get(path, path): (m.outputs, m.weights) for path, m in matrices.items()}
    made |= {"attention_out": (heads + scores, 0), "mlp_hidden": (down.inputs, 0)}
    most = sum(size for size, _ in made.values()) + heads + keys
    layer = most + made.get("mlp_gate", (0, 0))[0]
    names = kept_names(compute.remat)
    if names is None:
        return Activations(layer, 4.0, most, 0.0, recomputes_attention=False)
    moved = split_names(compute.offload_activations)
    held = [name for name in names if name not in moved]
    again = sum(weights for name, (_, weights) in made.items() if name not in names)
    return Activations(
        layer,
        kept_between=("layer_input" not in moved) + ("attention_joined" in held),
        kept_within=sum(size for name, (size, _) in made.items() if name in held),
        recomputed_weights=again + (0 if "attention_joined" in names else joined.weights),
        recomputes_attention="attention_out" not in names,
    )


def _copies(run: RunPlan, bytes_each: int) -> float:
    """Weights in the compute dtype; in float32 only those gathered from other devices.

    A frozen base that is narrow already is not copied (one in 4 or 8 bits is unpacked matrix by
    matrix).
    """
    mesh = run.layout.mesh.shape
    wide = run.trained.matmul_dtype == "float32"
    shards, parts = mesh["fsdp"] * mesh[SEQUENCE_AXIS], mesh[TENSOR_AXIS]
    layer = run.model.num_layer_matmul_params * bytes_each / parts
    cast = 0.0
    if wide and bytes_each < FLOAT32 and run.layout.platform != "tpu":
        cast = run.model.num_layers * layer / shards
    return cast + (2 * layer if shards > 1 else 0)


def _loss_bytes(run: RunPlan, bytes_each: int) -> float:
    """Head and its float32 gradient, gathered, and three float32 arrays of a chunk's logits."""
    parts = run.layout.mesh.shape[TENSOR_AXIS]
    columns = run.model.vocab_size / parts
    chunk = chunk_size(max(run.positions, 1), int(columns))
    head = columns * run.model.embedding_width
    return head * (bytes_each + FLOAT32) + 3 * chunk * columns * FLOAT32


def _local_bytes(tree: Any) -> float:
    """Bytes of a device's shards of all arrays but those in the host's memory."""
    leaves = [x for x in jax.tree.leaves(tree) if x.sharding.memory_kind != "pinned_host"]
    sizes = (
        math.prod(x.sharding.shard_shape(x.shape)) * number_bytes(x.dtype, _platform(x))
        for x in leaves
    )
    return float(sum(sizes))


def number_bytes(dtype: Any, platform: str) -> float:
    """Bytes of a number in an array: half a one in 4 bits, but on CPUs, which do not pack them."""
    bits = jax.dtypes.itemsize_bits(dtype)
    return (max(8, bits) if platform == "cpu" else bits) / 8


def _platform(leaf: jax.ShapeDtypeStruct) -> str:
    return next(iter(leaf.sharding.device_set)).platform


def budget_text(budget: Budget, limit: float | None) -> str:
    """The budget in one line, beside a device's memory where it is known.

    >>> budget = Budget(*(2**30 * part for part in (1, 0, 2, 1, 0, 3, 2, 1)))
    >>> print(budget_text(budget, 8 * 2**30)[:82])
    Memory a device, estimated: 9.0 GiB (weights 1.0, optimizer 2.0, gradients 1.0, ac
    >>> print(budget_text(budget, 8 * 2**30)[-43:])
    of 8.0 GiB: it may not fit; see `tulu plan`
    """
    parts = (
        ("weights", budget.weights + budget.frozen + budget.copies),
        ("optimizer", budget.optimizer),
        ("gradients", budget.gradients),
        ("activations kept", budget.kept),
        ("at work", max(budget.working, budget.loss)),
    )
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
    text = f"Memory a device, estimated: {budget.total / GIB:.1f} GiB ({listed})"
    if limit is None:
        return text
    warning = ": it may not fit; see `tulu plan`" if budget.total > limit else ""
    return f"{text} of {limit / GIB:.1f} GiB{warning}"


def device_limit() -> float | None:
    """Bytes that a program may use on a device of this process; None where JAX does not say."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None
