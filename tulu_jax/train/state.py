"""The training state, made shape first: nothing is ever allocated unsharded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from tulu_jax.models import ModelConfig, init_params
from tulu_jax.models.lora import LoraConfig, init_adapters
from tulu_jax.parallel.rules import Layout, abstract_sharded_params
from tulu_jax.train.adapters import abstract_sharded_adapters


class TrainState(NamedTuple):
    """Everything a step reads and writes."""

    step: Any
    """An int32 scalar: optimizer steps done; also the whole state of the data."""
    params: Any
    """What is trained: the weights, or with LoRA the adapters."""
    opt_state: Any


def abstract_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    *,
    lora: LoraConfig | None = None,
) -> TrainState:
    """The state as shapes, dtypes and shardings; moments lie as their weights do."""
    if lora is None:
        params = abstract_sharded_params(config, layout)
    else:
        params = abstract_sharded_adapters(config, lora, layout)
    shapes = jax.eval_shape(optimizer.init, params)
    whole = layout.replicated
    opt_state = optax.tree.map_params(
        optimizer,
        lambda shape, like: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=like.sharding),
        shapes,
        params,
        transform_non_params=lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    )
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32, sharding=whole), params, opt_state)


def create_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    *,
    seed: int = 0,
    params: Any = None,
    lora: LoraConfig | None = None,
) -> TrainState:
    """A state at step 0, every array born on the devices it will live on.

    Args:
      config: the model.
      optimizer: from `make_optimizer`.
      layout: where weights lie.
      seed: of fresh weights; the same on any mesh.
      params: weights to start from instead; already sharded, float32.
      lora: adapters are trained instead of weights.
    """
    target = abstract_state(config, optimizer, layout, lora=lora)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)

    def fresh_params(key: Array) -> Any:
        return init_params(config, key) if lora is None else init_adapters(config, lora, key)

    if params is None:
        params = _jit(fresh_params, shardings.params)(jax.random.key(seed))
    opt_state = _jit(optimizer.init, shardings.opt_state)(params)
    step = jax.device_put(jnp.zeros((), jnp.int32), layout.replicated)
    return TrainState(step, params, opt_state)


def _jit(function: Callable[..., Any], out_shardings: Any) -> Callable[..., Any]:
    return jax.jit(function, out_shardings=out_shardings)
