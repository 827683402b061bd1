"""What lies where: each weight's share of a device, and why it is no smaller."""

from __future__ import annotations

import dataclasses
import math

import jax
from jax.sharding import NamedSharding, PartitionSpec

from tulu_jax.models import ModelConfig, abstract_params, logical_axes
from tulu_jax.parallel.rules import DEFAULT_RULES, Layout, mesh_axes, num_parts

GIB = 2**30
WORTH_TELLING = 0.01
"""Share of a device's weights below which the short report leaves a reason out."""
WEIGHT_AXES = ("layers", "embed", "word_embed", "positions", "heads", "kv_heads", "head_dim",
               "mlp", "vocab")  # fmt: skip
"""Logical axes that weights have, as opposed to activations."""


@dataclasses.dataclass(frozen=True)
class WeightShare:
    """One weight and what a device holds of it."""

    name: str
    """Its path in the tree: layers/attention/query."""
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    """Logical name of each axis."""
    spec: tuple[tuple[str, ...], ...]
    """Mesh axes that each axis is split over; () where it is whole."""
    num_bytes: int
    bytes_per_device: int
    reasons: tuple[str, ...]
    """Why it is not split over a mesh axis that splits other weights, one a mesh axis."""


def sharding_report(
    config: ModelConfig, layout: Layout, *, bytes_per_weight: int = 4
) -> list[WeightShare]:
    """Every weight of the model, the largest share of a device first; from shapes alone."""
    shapes = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    names = jax.tree.leaves(logical_axes(config), is_leaf=lambda x: isinstance(x, PartitionSpec))
    shares = []
    for (path, shape), axes, sharding in zip(
        shapes, names, jax.tree.leaves(layout.params(config)), strict=True
    ):
        name = "/".join(str(key.key) for key in path)
        shares.append(_share(name, shape.shape, axes, sharding, layout, bytes_per_weight))
    return sorted(shares, key=lambda share: (-share.bytes_per_device, share.name))


def _share(
    name: str,
    shape: tuple[int, ...],
    axes: PartitionSpec,
    sharding: NamedSharding,
    layout: Layout,
    bytes_per_weight: int,
) -> WeightShare:
    entries = (*sharding.spec, *(None,) * (len(shape) - len(sharding.spec)))
    spec = tuple(mesh_axes(entry) for entry in entries)
    logical = tuple(str(axis) for axis in axes)
    parts = math.prod(num_parts(entry, layout.mesh) for entry in entries)
    size = math.prod(shape) * bytes_per_weight
    return WeightShare(
        name, shape, logical, spec, size, size // parts,
        tuple(_reasons(shape, logical, spec, layout)),
    )  # fmt: skip


def _reasons(
    shape: tuple[int, ...],
    logical: tuple[str, ...],
    spec: tuple[tuple[str, ...], ...],
    layout: Layout,
) -> list[str]:
    """One for every mesh axis that splits weights, but not this one."""
    rules = dict(layout.rules)
    split_by = {axis for name in rules if name in WEIGHT_AXES for axis in mesh_axes(rules[name])}
    wished = {**DEFAULT_RULES, **layout.overrides}
    found = []
    for axis in layout.mesh.axis_names:
        parts = layout.mesh.shape[axis]
        used = any(axis in entry for entry in spec)
        wanted = [
            (name, size)
            for name, size in zip(logical, shape, strict=True)
            if axis in mesh_axes(wished.get(name))
        ]
        if parts == 1 or used or (axis not in split_by and not wanted):
            continue
        if not wanted:
            found.append(f"{axis}={parts}: none of its axes is laid over it")
        elif any(axis in mesh_axes(rules[name]) for name, _ in wanted):
            found.append(f"{axis}={parts}: another of its axes has it")
        else:
            name, size = wanted[0]
            found.append(f"{axis}={parts}: {name} {size} does not divide")
    return found


def report_text(shares: list[WeightShare]) -> str:
    """The whole report as a table for a file or a terminal.

    A mesh axis within `[ ]` splits the axis that it follows: `[2, 4096[fsdp], 11008[tensor]]`.
    """
    rows = [("weight", "shape", "bytes", "a device", "not split because")]
    for share in shares:
        sides = [
            f"{size}[{' x '.join(axes)}]" if axes else str(size)
            for size, axes in zip(share.shape, share.spec, strict=True)
        ]
        rows.append((
            share.name, f"[{', '.join(sides)}]", f"{share.num_bytes:,}",
            f"{share.bytes_per_device:,}", "; ".join(share.reasons),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *report_summary(shares)]) + "\n"


def report_summary(shares: list[WeightShare]) -> list[str]:
    """The report in a few lines: the sum, and what holds back more than a hundredth of it."""
    total = sum(share.num_bytes for share in shares)
    local = sum(share.bytes_per_device for share in shares)
    lines = [
        f"Weights: {total / GIB:.3g} GiB in all, {local / GIB:.3g} GiB a device "
        f"(1/{total / local:.3g})"
    ]
    by_reason: dict[str, list[WeightShare]] = {}
    for share in shares:
        for reason in share.reasons:
            by_reason.setdefault(reason, []).append(share)
    for reason, held in by_reason.items():
        size = sum(share.bytes_per_device for share in held)
        if size < WORTH_TELLING * local:
            continue
        names = ", ".join(share.name for share in held[:4])
        more = f" and {len(held) - 4} more" if len(held) > 4 else ""
        lines.append(f"  not split over {reason}: {names}{more} ({size / GIB:.3g} GiB a device)")
    return lines
