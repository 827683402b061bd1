"""Plain functions over a model's weights: shapes, initial values, final states, logits."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.family import ModelConfig, declared_tree, init_boxed

Params = dict[str, Any]
AnyArray = Array | np.ndarray
"""Of JAX or of NumPy, both of which people call with."""


def head_weight(config: ModelConfig, params: Params) -> Float[Array, "D V"]:
    """The output head: `lm_head`, or the transposed embedding when they are tied."""
    head = params["embedding"].T if config.tie_embeddings else params["lm_head"]
    return jnp.asarray(head)


def init_params(config: ModelConfig, key: Array) -> Params:
    """Fresh float32 weights: normal with standard deviation 0.02, norms at 1, biases at 0."""
    return _unbox(init_boxed(config, key))


def _unbox(tree: Any) -> Params:
    """The bare arrays; without constraining them, which fails on shapes under a mesh."""
    return jax.tree.map(
        lambda box: box.unbox(apply_constraint=False),
        tree,
        is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned),
    )


def abstract_params(config: ModelConfig) -> Params:
    """The tree of weights as shapes and dtypes; nothing is allocated."""
    return _unbox(declared_tree(config))


def logical_axes(config: ModelConfig) -> Params:
    """The tree of weights with, for each, a PartitionSpec of logical axis names."""
    return nn.get_partition_spec(declared_tree(config))


def positions_in_segments(segment_ids: Int[AnyArray, "B T"]) -> Int[AnyArray, "B T"]:
    """Position of each token within its own conversation.

    segment_ids  1 1 1 2 2 0 0
    positions    0 1 2 0 1 0 1
    """
    slots = jnp.broadcast_to(jnp.arange(segment_ids.shape[1]), segment_ids.shape)
    before = jnp.pad(segment_ids, ((0, 0), (1, 0)))[:, :-1]
    starts = jnp.where((segment_ids != before) | (slots == 0), slots, 0)
    return slots - jax.lax.cummax(starts, axis=1)


def hidden_states(
    config: ModelConfig,
    params: Params,
    tokens: Int[AnyArray, "B T"],
    segment_ids: Int[AnyArray, "B T"],
    positions: Int[AnyArray, "B T"],
    *,
    compute: ComputeConfig | None = None,
) -> Float[Array, "B T D"]:
    """Final states after the last norm, in the compute dtype; NumPy arrays are taken too."""
    model: Any = config.decoder(compute or ComputeConfig())
    arrays = jax.tree.map(jnp.asarray, (params, tokens, segment_ids, positions))
    return model.apply({"params": arrays[0]}, *arrays[1:])[0]


def forward(
    config: ModelConfig,
    params: Params,
    tokens: Int[AnyArray, "B T"],
    segment_ids: Int[AnyArray, "B T"] | None = None,
    positions: Int[AnyArray, "B T"] | None = None,
    *,
    compute: ComputeConfig | None = None,
) -> Float[Array, "B T V"]:
    """Logits at every position: `logits[b, t]` predicts `tokens[b, t + 1]`.

    Args:
      config: the model.
      params: its weights, as `init_params` or `checkpoint.hf.load` gives them.
      tokens: ids in [0, V).
      segment_ids: conversation of each token, 0 for padding; None means one conversation a row.
      positions: position within the conversation; None derives it from `segment_ids`.
      compute: dtype, remat and unrolling; float32 by default.
    """
    if segment_ids is None:
        segment_ids = jnp.ones_like(tokens)
    if positions is None:
        positions = positions_in_segments(segment_ids)
    states = hidden_states(config, params, tokens, segment_ids, positions, compute=compute)
    head = head_weight(config, params).astype(states.dtype)
    return jnp.einsum("BTD,DV->BTV", states, head, preferred_element_type=jnp.float32)
