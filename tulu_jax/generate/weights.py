"""A model's weights as generation wants them: layers apart, matrices stored output by output."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tulu_jax.models import ModelConfig
from tulu_jax.models.family import declared_weights
from tulu_jax.models.weight import MATRICES
from tulu_jax.ops import AdaptedWeight, TransposedWeight, transposed

Leaf = tuple[tuple[str, ...], Any]
"""A weight and its path in the tree: ("layers", "mlp", "up")."""


class Weights(NamedTuple):
    """The variables that the family's modules are applied to, and the output head."""

    outer: dict[str, Any]
    """Of all but the layers."""
    layers: list[dict[str, Any]]
    """Of every layer."""
    head: TransposedWeight
    """[V, D] stored; the embedding itself where they are tied."""


def split_weights(config: ModelConfig, params: Any, dtype: str) -> Weights:
    """Weights in the form above, rounded once to `dtype`.

    Args:
      config: the model.
      params: the tree of weights, with layers stacked, on the host or on devices; or its leaves
        with their paths one by one, of which one is held at a time. An `AdaptedWeight` stays
        unmerged, sharded arrays stay sharded.
      dtype: of the result, but of adapters, which stay float32.
    """
    declared = declared_weights(config)
    outer: dict[str, Any] = {"params": {}, MATRICES: {}}
    layers = [{"params": {}, MATRICES: {}} for _ in range(config.num_layers)]
    for path, leaf in leaves(params) if isinstance(params, dict) else params:
        inputs = declared[path].inputs
        if path[0] != "layers":
            _put(outer, path, leaf, inputs, dtype)
            continue
        for number, layer in enumerate(layers):
            one = jax.tree.map(lambda array, number=number: array[number], leaf)
            _put(layer, path[1:], one, inputs, dtype)
    if config.tie_embeddings:
        rows = outer["params"]["embedding"]
        return Weights(outer, layers, TransposedWeight(rows, rows.shape[::-1]))
    return Weights(outer, layers, outer[MATRICES]["lm_head"])


def leaves(params: dict[str, Any]) -> list[Leaf]:
    """The weights of a tree with their paths; an `AdaptedWeight` is one."""
    found = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=lambda leaf: isinstance(leaf, AdaptedWeight)
    )[0]
    return [(tuple(key.key for key in keys), leaf) for keys, leaf in found]


def _put(
    variables: dict[str, Any], path: tuple[str, ...], leaf: Any, inputs: int, dtype: str
) -> None:
    """Puts a weight among a module's variables, matrices in a collection of their own."""
    place = variables[MATRICES if inputs else "params"]
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = _matrix(leaf, inputs, dtype) if inputs else jnp.asarray(leaf, dtype)


def _matrix(leaf: Any, inputs: int, dtype: str) -> Any:
    if isinstance(leaf, AdaptedWeight):
        frozen = _matrix(leaf.weight, inputs, dtype) if hasattr(leaf.weight, "at") else leaf.weight
        a, b = jnp.asarray(leaf.a), jnp.asarray(leaf.b)
        return AdaptedWeight(frozen, a, b, None, leaf.scale, 0.0)
    found = transposed(leaf, inputs)
    if isinstance(found.rows, np.ndarray):  # else JAX would take the strided view for its own
        return TransposedWeight(jnp.asarray(np.ascontiguousarray(found.rows), dtype), found.shape)
    return TransposedWeight(found.rows.astype(dtype), found.shape)
