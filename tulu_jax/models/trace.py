"""The activations of every layer and part of a model, to be looked at."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tulu_jax.models.apply import AnyArray, Params, head_weight
from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.family import ModelConfig


def trace(
    config: ModelConfig,
    params: Params,
    tokens: Int[AnyArray, "B T"],
    segment_ids: Int[AnyArray, "B T"],
    positions: Int[AnyArray, "B T"],
) -> dict[str, Float[Array, "..."]]:
    """The activations of a float32 forward pass, by name.

    `input` is what each layer is given, and each of `config.layer_parts` what that part makes of
    it, all [L, B, T, D]; `final` [B, T, D] is what the head multiplies, `logits` [B, T, V] the
    result.
    """
    arrays = jax.tree.map(jnp.asarray, (params, tokens, segment_ids, positions))
    module: Any = config.decoder(ComputeConfig())
    with nn.intercept_methods(_keep):
        (final, _), kept = module.apply({"params": arrays[0]}, *arrays[1:], mutable="intermediates")
    layers = kept["intermediates"]["layers"]
    states = {part: layers[part]["output"][0] for part in config.layer_parts}
    logits = jnp.einsum("BTD,DV->BTV", final, head_weight(config, arrays[0]))
    return {"input": layers["input"][0], **states, "final": final, "logits": logits}


def _keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Runs a module's method, and sows what `trace` gives back."""
    module = context.module
    if context.method_name == "__call__" and module.path == ("layers",):
        module.sow("intermediates", "input", args[0])
    result = call(*args, **kwargs)
    if context.method_name == "__call__" and module.path[:-1] == ("layers",):
        output = result[0] if isinstance(result, tuple) else result
        module.sow("intermediates", "output", output)
    return result
