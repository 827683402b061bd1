"""Logical axis names to mesh axes, for one model on one mesh."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
from flax.linen import spmd
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tulu_jax.axes import BATCH_AXES, TENSOR_AXIS
from tulu_jax.errors import ConfigError
from tulu_jax.models import ModelConfig, abstract_params, logical_axes

Rules = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything of one model lies on one mesh."""

    mesh: Mesh
    rules: Rules
    notes: tuple[str, ...]
    """What could not be split, and why: shown at start-up."""

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
        return spmd.logical_to_mesh_sharding(logical_axes(config), self.mesh, self.rules)

    @property
    def rows(self) -> NamedSharding:
        """The sharding of [B, T] batch arrays: rows over data and fsdp."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES, None))

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of scalars and other small things."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def num_row_shards(self) -> int:
        """Into how many parts the rows of a batch are split."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def row_share(self) -> tuple[int, int]:
        """(i, n): the devices of this process hold the i-th of n equal shares of a batch's rows.

        Processes whose devices differ only along `tensor` hold, and must feed, the same share.

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
                expected="data x fsdp that the number of hosts divides, or that divides it",
                do="change MESH_DATA, MESH_FSDP or MESH_TENSOR",
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
                expected=f"a multiple of data x fsdp = {self.num_row_shards}",
            )


def layout_for(config: ModelConfig, mesh: Mesh) -> Layout:
    """The layout of a model on a mesh.

    Weights are split over `fsdp` along `embed` and over `tensor` along heads, mlp and vocab. What
    only costs memory when left whole (kv_heads, vocab) is left whole and noted if it does not
    divide; the rest must divide.

    Raises:
      ConfigError: fsdp does not divide d_model, or tensor does not divide heads or d_ff.
    """
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape[TENSOR_AXIS]
    for name, size, axis, parts in (
        ("d_model", config.d_model, "fsdp", fsdp),
        ("num_heads", config.num_heads, "tensor", tensor),
        ("d_ff", config.d_ff, "tensor", tensor),
    ):
        if size % parts:
            raise ConfigError(
                f"mesh axis {axis} does not divide the model",
                got=f"{axis}={parts}, {name}={size}",
                expected=f"{axis} to divide {name}",
                do=f"choose another MESH_{axis.upper()}",
            )
    notes = []
    split = {}
    for name, size in (("kv_heads", config.num_kv_heads), ("vocab", config.vocab_size)):
        split[name] = TENSOR_AXIS if size % tensor == 0 else None
        if split[name] is None:
            notes.append(f"{name} ({size}) is not split over tensor={tensor}: it does not divide")
    rules = (
        ("batch", BATCH_AXES),
        ("length", None),
        ("activation_embed", None),
        ("layers", None),
        ("embed", "fsdp"),
        ("word_embed", None),
        ("positions", None),
        ("heads", TENSOR_AXIS),
        ("kv_heads", split["kv_heads"]),
        ("head_dim", None),
        ("mlp", TENSOR_AXIS),
        ("vocab", split["vocab"]),
    )
    return Layout(mesh, rules, tuple(notes))


def abstract_sharded_params(config: ModelConfig, layout: Layout, *, dtype: str = "float32") -> Any:
    """The tree of weights as shapes, dtypes and shardings: the target of every restore."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, dtype, sharding=sharding),
        abstract_params(config),
        layout.params(config),
    )
