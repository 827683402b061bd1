"""The training state, made shape first: nothing is ever allocated unsharded."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from tulu_jax.parallel.rules import Layout, num_parts
from tulu_jax.train.trained import Trained


class TrainState(NamedTuple):
    """Everything a step reads and writes."""

    step: Any
    """An int32 scalar: optimizer steps done; also the whole state of the data."""
    params: Any
    """What is trained: all weights, or adapters."""
    opt_state: Any


def abstract_state(
    trained: Trained, optimizer: optax.GradientTransformation, layout: Layout
) -> TrainState:
    """The state as shapes, dtypes and shardings; moments lie as their weights do.

    Where the layout says so, moments lie in the hosts' memory.
    """
    params = trained.abstract(layout)
    shapes = jax.eval_shape(optimizer.init, params)
    whole = layout.replicated
    kind = "pinned_host" if layout.offload_optimizer else None
    opt_state = optax.tree.map_params(
        optimizer,
        lambda moment, weight: jax.ShapeDtypeStruct(
            moment.shape, moment.dtype, sharding=moment_sharding(moment.shape, weight, kind)
        ),
        shapes,
        params,
        transform_non_params=lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    )
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32, sharding=whole), params, opt_state)


def moment_sharding(
    shape: tuple[int, ...], weight: jax.ShapeDtypeStruct, memory_kind: str | None = None
) -> NamedSharding:
    """Where a moment of a weight lies: as the weight does, on the axes that it has too.

    Adafactor's means lack one axis of their weight; which one is told by their shape. If two axes
    would do, that which leaves the mean in more parts is taken to be gone. A weight [32, 64, 64]
    split P(None, "fsdp", "tensor"):

        moment [32, 64, 64]   P(None, "fsdp", "tensor")
        mean   [32, 64]       P(None, "fsdp")
        (none) [1]            P()

    Args:
      shape: of the moment.
      weight: its shape and sharding.
      memory_kind: None for the devices' own memory.
    """
    sharding = weight.sharding
    assert isinstance(sharding, NamedSharding)
    spec = (*sharding.spec, *(None,) * (len(weight.shape) - len(sharding.spec)))
    mesh = sharding.mesh
    options = [spec] if shape == weight.shape else []
    for gone in range(len(spec)):
        if shape == (*weight.shape[:gone], *weight.shape[gone + 1 :]):
            options.append((*spec[:gone], *spec[gone + 1 :]))
    parts = [math.prod(num_parts(axis, mesh) for axis in option) for option in options]
    best = options[parts.index(max(parts))] if options else ()
    return NamedSharding(mesh, PartitionSpec(*best), memory_kind=memory_kind)
