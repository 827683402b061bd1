"""Where adapters lie on the mesh, and the keys of their dropout."""

from __future__ import annotations

from typing import Any

import jax
from flax.linen import spmd
from jaxtyping import Array

from tulu_jax.models import ModelConfig
from tulu_jax.models.lora import LoraConfig, abstract_adapters, adapter_axes
from tulu_jax.parallel import Layout


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


def dropout_key(seed: int, step: Array, part: Array) -> Array:
    """The key of one micro-batch's dropout: a pure function of the run's seed, step and part.

    So a resumed run drops the very inputs that the run that was never stopped does.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), part)
