"""Where adapters lie on the mesh, and the keys of their dropout."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from flax.linen import spmd
from jaxtyping import Array

from tulu_jax.models import ModelConfig
from tulu_jax.models.lora import (
    LoraConfig,
    abstract_adapters,
    adapter_axes,
    adapter_shapes,
    scale_sharding,
)
from tulu_jax.ops import QuantizedWeight, quantize
from tulu_jax.parallel import Layout
from tulu_jax.parallel.rules import abstract_sharded_params


def abstract_sharded_adapters(config: ModelConfig, lora: LoraConfig, layout: Layout) -> Any:
    """The tree of adapters as shapes, dtypes and shardings; the rank is never split."""
    axes = adapter_axes(config, lora)
    shardings = spmd.logical_to_mesh_sharding(axes, layout.mesh, layout.rules)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        abstract_adapters(config, lora),
        shardings,
    )


def frozen_shardings(config: ModelConfig, lora: LoraConfig, layout: Layout) -> Any:
    """Where a step expects the frozen weights; None takes quantised ones wherever they lie."""
    return None if lora.quantized else layout.params(config)


def abstract_frozen(config: ModelConfig, lora: LoraConfig, layout: Layout) -> Any:
    """The frozen weights as shapes, dtypes and shardings, quantised as `quantize_base` does.

    Raises:
      ConfigError: they are to be quantised, and qwix is not installed.
    """
    frozen = abstract_sharded_params(config, layout, dtype=lora.read_dtype)
    if not lora.quantized:
        return frozen
    shapes = adapter_shapes(config, lora)

    def small(path: Any, weight: Any) -> Any:
        shape = shapes.get(tuple(entry.key for entry in path))
        if shape is None:
            return weight
        made = jax.eval_shape(
            partial(quantize, kind=lora.base_dtype, inputs=shape.a[1], outputs=shape.b[2]), weight
        )
        placed = scale_sharding(weight, shape)
        return QuantizedWeight(
            jax.ShapeDtypeStruct(weight.shape, made.values.dtype, sharding=weight.sharding),
            jax.ShapeDtypeStruct(made.scale.shape, made.scale.dtype, sharding=placed),
            lora.base_dtype,
        )

    return jax.tree_util.tree_map_with_path(small, frozen)


def dropout_key(seed: int, step: Array, part: Array) -> Array:
    """The key of one micro-batch's dropout: a pure function of the run's seed, step and part.

    So a resumed run drops the very inputs that the run that was never stopped does.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), part)
