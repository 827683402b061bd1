"""Logical axis names to mesh axes, for one model on one mesh."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.linen import spmd
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from tulu_jax.axes import BATCH_AXES, MESH_AXES, SEQUENCE_AXIS, TENSOR_AXIS
from tulu_jax.errors import ConfigError
from tulu_jax.models import ModelConfig, abstract_params, logical_axes
from tulu_jax.parallel.mesh import MACROS

Rules = tuple[tuple[str, Any], ...]

DEFAULT_RULES: Mapping[str, Any] = {
    "batch": BATCH_AXES,
    "activation_length": SEQUENCE_AXIS,
    "length": SEQUENCE_AXIS,
    "activation_embed": None,
    "layers": None,
    "embed": ("fsdp", SEQUENCE_AXIS),
    "word_embed": None,
    "positions": None,
    "heads": TENSOR_AXIS,
    "kv_heads": TENSOR_AXIS,
    "head_dim": None,
    "mlp": TENSOR_AXIS,
    "vocab": TENSOR_AXIS,
}
"""Where each logical axis lies unless MESH's `axis_rules` say otherwise.

`activation_length` is the length of what goes from block to block, `length` that within a block.
Setting the first to `('sequence', 'tensor')` is Megatron's sequence parallelism: norms and sums
work on, and a layer's saved input takes, 1 / tensor of the memory; the sum over `tensor` at the end
of each block becomes a scatter there and a gather in the next block, the same bytes in all.

Attention needs whole rows, so where `sequence` is more than 1 devices exchange positions for heads
before it and back after it (`ops.attention.sharded`; DeepSpeed's Ulysses): kernels such as splash
run as they are, with segments, and causality leaves no device with more work than another. A ring
would allow more parts than there are heads, and needs a kernel of its own.
"""

ROW_SHARDS = " x ".join(BATCH_AXES)

MUST_DIVIDE = {"embed": "d_model", "heads": "num_heads", "mlp": "d_ff"}
"""Logical axes that may not be left whole for want of divisibility, and their model's fields."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything of one model lies on one mesh."""

    mesh: Mesh
    rules: Rules
    notes: tuple[str, ...]
    """What could not be split, and why: shown at start-up."""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The rules that were set in place of the default ones."""
    offload_optimizer: bool = False
    """The optimizer's moments lie in the hosts' memory and visit the devices in each step."""
    table_embed: Any = None
    """Where `embed` of embedding and head lies, if elsewhere: see `_table_embed`."""

    @property
    def table_rules(self) -> Rules:
        """The rules for embedding and head."""
        if self.table_embed is None:
            return self.rules
        return tuple({**dict(self.rules), "embed": self.table_embed}.items())

    @property
    def platform(self) -> str:
        """Where the mesh lies: cpu, gpu or tpu; also of devices that are only described."""
        return self.mesh.devices.flat[0].platform

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Puts mesh and rules in force: trace and run every step inside.

        `jax.set_mesh` and not `with mesh:`, under which Flax drops every logical constraint
        without a word.
        """
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules):
            yield

    def params(self, config: ModelConfig) -> Any:
        """A sharding for every weight of the model."""

        def place(axes: PartitionSpec) -> NamedSharding:
            rules = self.table_rules if "vocab" in axes else self.rules
            return spmd.logical_to_mesh_sharding(axes, self.mesh, rules)

        axes = logical_axes(config)
        return jax.tree.map(place, axes, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))

    @property
    def rows(self) -> NamedSharding:
        """The sharding of [B, T] batch arrays: rows over slice, data and fsdp.

        Ids are whole in length even where activations are not: they take four bytes a position,
        and a host can feed them without knowing which positions its devices compute.
        """
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES, None))

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of scalars and other small things."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def num_row_shards(self) -> int:
        """Into how many parts the rows of a batch are split."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    def row_share(self) -> tuple[int, int]:
        """(i, n): the devices of this process hold the i-th of n equal shares of a batch's rows.

        Processes whose devices differ only along `sequence` and `tensor` hold, and must feed, the
        same share.

        Raises:
          ConfigError: some processes would share a part of their rows only.
        """
        shards: dict[int, set[int]] = {}
        for shard, devices in enumerate(self.mesh.devices.reshape(self.num_row_shards, -1)):
            for device in devices:
                shards.setdefault(device.process_index, set()).add(shard)
        shares = sorted({tuple(sorted(held)) for held in shards.values()})
        if len(shares) * len(shares[0]) != self.num_row_shards or len({*map(len, shares)}) > 1:
            raise ConfigError(
                "hosts cannot share the rows of a batch evenly",
                got=f"mesh {dict(self.mesh.shape)} over {len(shards)} hosts",
                expected=f"{ROW_SHARDS} that the number of hosts divides, or that divides it",
                do=f"change one of {MACROS}",
            )
        return shares.index(tuple(sorted(shards[jax.process_index()]))), len(shares)

    def check_rows(self, rows: int, *, name: str = "BATCH_SIZE") -> None:
        """Refuses a number of rows that cannot be split evenly.

        Raises:
          ConfigError: `rows` is not a multiple of the number of row shards.
        """
        if rows % self.num_row_shards:
            raise ConfigError(
                f"{name} cannot be split over the devices",
                got=rows,
                expected=f"a multiple of {ROW_SHARDS} = {self.num_row_shards}",
            )

    def check_length(self, length: int) -> None:
        """Refuses rows whose positions cannot be split evenly.

        Raises:
          ConfigError: `length` is not a multiple of the parts that a row is cut into.
        """
        rules = dict(self.rules)
        parts = max(num_parts(rules[name], self.mesh) for name in ("length", "activation_length"))
        if length % parts:
            raise ConfigError(
                "rows cannot be split over the devices",
                got=f"TASK_FEATURE_LENGTHS={{'targets': {length}}}",
                expected=f"a multiple of the {parts} parts of a row",
                do="change it, MESH_SEQUENCE or AXIS_RULES",
            )


def layout_for(
    config: ModelConfig,
    mesh: Mesh,
    *,
    rules: Mapping[str, Any] | None = None,
    offload_optimizer: bool = False,
) -> Layout:
    """The layout of a model on a mesh.

    Weights are split over `fsdp` and `sequence` along `embed`, and over `tensor` along heads, mlp
    and vocab. What only costs memory when left whole (kv_heads, vocab) is left whole and noted if
    it does not divide; the rest must divide.

    Args:
      config: the model.
      mesh: from `make_mesh`.
      rules: logical axis -> mesh axis, axes or None, in place of those of `DEFAULT_RULES`.
      offload_optimizer: keep the optimizer's moments in the hosts' memory.

    Raises:
      ConfigError: a rule names an axis that does not exist, or mesh axes do not divide d_model,
        the heads or d_ff; or the devices cannot reach their host's memory.
    """
    if offload_optimizer:
        _check_host_memory(mesh)
    overrides = dict(rules or {})
    check_overrides(overrides)
    chosen = {name: _present(axes, mesh) for name, axes in {**DEFAULT_RULES, **overrides}.items()}
    notes, table = [], None
    for name, size in _weight_axes(config):
        parts = num_parts(chosen[name], mesh)
        if size % parts == 0:
            continue
        if name in MUST_DIVIDE:
            raise _does_not_divide(MUST_DIVIDE[name], size, chosen[name], parts)
        split = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in mesh_axes(chosen[name]))
        note = f"{name} ({size}) is not split over {split}: it does not divide"
        if name == "vocab" and (table := _table_embed(config, mesh, chosen)) is not None:
            note += "; its weights lie there along embed, and the loss pads it"
        notes.append(note)
        chosen[name] = None
    return Layout(mesh, tuple(chosen.items()), tuple(notes), overrides, offload_optimizer, table)


def _table_embed(config: ModelConfig, mesh: Mesh, chosen: Mapping[str, Any]) -> Any:
    """Where `embed` of embedding and head lies if `vocab` does not divide: over its axes as well.

    So the tables take no more memory than with a vocabulary that divides. None if that does not
    divide either.
    """
    both = tuple(dict.fromkeys(mesh_axes(chosen["embed"]) + mesh_axes(chosen["vocab"])))
    return _present(both, mesh) if config.embedding_width % num_parts(both, mesh) == 0 else None


def _check_host_memory(mesh: Mesh) -> None:
    device = mesh.devices.flat[0]
    try:
        kinds = {memory.kind for memory in device.addressable_memories()}
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return  # A device that is only described: the compiler will tell.
    if "pinned_host" not in kinds:
        raise ConfigError(
            "the optimizer's state cannot lie in the hosts' memory",
            got=f"{device.device_kind} with memory of the kinds {', '.join(sorted(kinds))}",
            expected="a device that reaches memory of the kind pinned_host",
            do="set OFFLOAD_OPTIMIZER=False",
        )


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Refuses rules for logical axes that no array has, or to mesh axes that do not exist.

    Raises:
      ConfigError: naming the rule and the nearest names.
    """
    for name, axes in overrides.items():
        rule = f"AXIS_RULES[{name!r}]={axes!r}"
        if name == "batch":
            raise ConfigError(
                "rows of a batch cannot be laid otherwise", got=rule,
                expected=f"no rule for batch: rows lie over {' x '.join(BATCH_AXES)}",
            )  # fmt: skip
        if name not in DEFAULT_RULES:
            near = difflib.get_close_matches(str(name), DEFAULT_RULES, n=3)
            raise ConfigError(
                "unknown logical axis", got=rule, expected=" or ".join(near or DEFAULT_RULES)
            )
        named = mesh_axes(axes) if axes is None or isinstance(axes, str | tuple | list) else (axes,)
        for axis in named:
            if axis not in MESH_AXES:
                raise ConfigError(
                    "unknown mesh axis",
                    got=rule,
                    expected=f"None, one of {', '.join(MESH_AXES)}, or several of them",
                )
        if len({*named}) < len(named):
            raise ConfigError(
                "a rule names a mesh axis twice", got=rule, expected="each axis at most once"
            )


def mesh_axes(rule: Any) -> tuple[str, ...]:
    """The mesh axes of one rule or one entry of a PartitionSpec."""
    if rule is None:
        return ()
    return (rule,) if isinstance(rule, str) else tuple(rule)


def num_parts(rule: Any, mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts a rule cuts an axis."""
    return math.prod(mesh.shape[axis] for axis in mesh_axes(rule))


def _present(rule: Any, mesh: Mesh) -> Any:
    """A rule of several axes without those of size 1, which would only clutter every spec."""
    if rule is None or isinstance(rule, str):
        return rule
    axes = [axis for axis in rule if mesh.shape[axis] > 1] or list(rule)[:1]
    if len(axes) > 1:
        return tuple(axes)
    return axes[0] if axes else None


def _weight_axes(config: ModelConfig) -> list[tuple[str, int]]:
    """Every logical axis that some weight has, with each size it has there."""
    shapes = jax.tree.leaves(abstract_params(config))
    axes = jax.tree.leaves(logical_axes(config), is_leaf=lambda x: isinstance(x, PartitionSpec))
    found = {
        (str(name), size)
        for shape, names in zip(shapes, axes, strict=True)
        for name, size in zip(names, shape.shape, strict=True)
        if name is not None
    }
    return sorted(found)


def _does_not_divide(field: str, size: int, rule: Any, parts: int) -> ConfigError:
    axes = mesh_axes(rule)
    return ConfigError(
        f"mesh axis {' x '.join(axes)} does not divide the model",
        got=f"{' x '.join(axes)}={parts}, {field}={size}",
        expected=f"{' x '.join(axes)} to divide {field}",
        do=f"choose another {' or '.join(f'MESH_{axis.upper()}' for axis in axes)}",
    )


def abstract_sharded_params(config: ModelConfig, layout: Layout, *, dtype: str = "float32") -> Any:
    """The tree of weights as shapes, dtypes and shardings: the target of every restore."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, dtype, sharding=sharding),
        abstract_params(config),
        layout.params(config),
    )
