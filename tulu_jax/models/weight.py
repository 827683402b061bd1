"""Weights as a module declares them: initial values, logical axes, what a product sums over."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from flax.linen import spmd
from jax.sharding import PartitionSpec
from jaxtyping import Array

INIT_STDDEV = 0.02

MATRICES = "matrices"
"""Flax collection of matrices in another form than arrays of their declared shapes, by the same
names: the `TransposedWeight`s of generation."""


@struct.dataclass
class DeclaredWeight(nn.LogicallyPartitioned):
    """The box that Flax keeps a weight in: its logical axes, and whether it is multiplied by."""

    inputs: int = struct.field(default=0, pytree_node=False)
    """Axes of one layer's weight, from the first on, that its product sums over; 0 for what is
    added, scaled with or looked up."""


def matrix(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...], *, inputs: int = 1
) -> Any:
    """A matrix of the module: normal with standard deviation 0.02 at first, float32.

    Numbers of weights, FLOPs, memory and adapters are counted from this declaration.

    Args:
      module: the Flax module, in its compact method.
      name: of the weight in the module's tree.
      shape: of one layer; the first `inputs` axes are summed over by the product.
      axes: the logical axis of each.
      inputs: 1, or 2 for a matrix from heads and their channels to the model's width.
    """
    if module.has_variable(MATRICES, name):
        return module.get_variable(MATRICES, name)
    return _declare(module, name, shape, axes, nn.initializers.normal(INIT_STDDEV), inputs)


def table(module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> Any:
    """A table whose rows are looked up: initial values as of `matrix`."""
    return _declare(module, name, shape, axes, nn.initializers.normal(INIT_STDDEV), 0)


def vector(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...], init: Any = None
) -> Any:
    """A bias (0 at first) or scale (with `init` ones) of the module, float32."""
    return _declare(module, name, shape, axes, init or nn.initializers.zeros, 0)


def _declare(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    init: Any,
    inputs: int,
) -> Any:
    def boxed(*args: Any) -> DeclaredWeight:
        return DeclaredWeight(init(*args), axes, inputs=inputs)

    return module.param(name, boxed, shape, jnp.float32)


def constrain(x: Any, axes: tuple[str | None, ...]) -> Array:
    """`x` laid over the mesh as the rules in force say for its logical axes."""
    return spmd.with_logical_constraint(x, axes)


def stored_spec(declared: DeclaredWeight, axes: tuple[str | None, ...]) -> PartitionSpec:
    """Where the rules in force put a weight; a matrix as it is stored output by output.

    Joined axes lie where the first of them does: heads before their channels.

    Args:
      declared: the weight.
      axes: the logical axes that it is left with: those of one layer.
    """
    where, inputs = spec_of(axes), declared.inputs
    return PartitionSpec(where[inputs], where[0]) if inputs else where


def spec_of(axes: tuple[str | None, ...]) -> PartitionSpec:
    """Where the rules in force put an array of these logical axes; nowhere apart without rules."""
    return spmd.logical_to_mesh_axes(axes) or PartitionSpec(*[None] * len(axes))
