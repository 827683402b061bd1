"""A model's weights as generation wants them: layers apart, matrices stored output by output."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from tulu_jax.models import ModelConfig
from tulu_jax.models.family import declared_weights
from tulu_jax.models.weight import MATRICES, DeclaredWeight, stored_spec
from tulu_jax.ops import AdaptedWeight, TransposedWeight, transposed
from tulu_jax.ops.attention.choice import mesh_in_force
from tulu_jax.ops.quantized import quantize_rows

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


def split_weights(config: ModelConfig, params: Any, dtype: str, *, int8: bool = False) -> Weights:
    """Weights in the form above, rounded once to `dtype`.

    Args:
      config: the model.
      params: the tree of weights, with layers stacked, on the host or on devices; or its leaves
        with their paths one by one, of which one is held at a time. An `AdaptedWeight` stays
        unmerged, sharded arrays stay sharded; what comes from the host is laid over the mesh in
        force as its rules say.
      dtype: of the result, but of adapters, which stay float32.
      int8: whether the matrices of layers are rounded to 8 bits, with a scale for each output.

    Raises:
      ConfigError: 8 bits without the package qwix.
    """
    declared = declared_weights(config)
    outer: dict[str, Any] = {"params": {}, MATRICES: {}}
    layers = [{"params": {}, MATRICES: {}} for _ in range(config.num_layers)]
    for path, leaf in leaves(params) if isinstance(params, dict) else params:
        box = declared[path]
        if path[0] != "layers":
            _put(outer, path, leaf, _Form(box, stored_spec(box, box.names), dtype))
            continue
        form = _Form(box, stored_spec(box, box.names[1:]), dtype, int8)
        for number, layer in enumerate(layers):
            one = jax.tree.map(lambda array, number=number: array[number], leaf)
            _put(layer, path[1:], one, form)
    if config.tie_embeddings:
        rows = outer["params"]["embedding"]
        return Weights(outer, layers, TransposedWeight(rows, rows.shape[::-1]))
    return Weights(outer, layers, outer[MATRICES]["lm_head"])


def stored_specs(config: ModelConfig, weights: Weights) -> Weights:
    """Where the rules in force put each array of `weights`, as `PartitionSpec`s."""
    declared = declared_weights(config)

    def spec(keys: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        names = [key.key for key in keys if isinstance(key, jax.tree_util.DictKey)]
        in_layers = keys[0].name == "layers"
        head = ("embedding",) if config.tie_embeddings else ("lm_head",)
        path = ("layers", *names[1:]) if in_layers else tuple(names[1:]) or head
        box = declared[path]
        found = stored_spec(box, box.names[1:] if in_layers else box.names)
        return PartitionSpec(*found[: leaf.ndim])

    return jax.tree_util.tree_map_with_path(spec, weights)


def moved(config: ModelConfig, weights: Weights, device: Any = None) -> Weights:
    """The weights on another device, or, without one, over the mesh in force as its rules say."""
    if device is not None:
        return jax.device_put(weights, device)
    return jax.device_put(weights, stored_specs(config, weights))


def read_bytes(config: ModelConfig, weights: Any) -> int:
    """Bytes of the weights that one step reads: all but a table of which rows are looked up."""
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((weights.outer, weights.layers)))
    return held - (0 if config.tie_embeddings else weights.outer["params"]["embedding"].nbytes)


def leaves(params: dict[str, Any]) -> list[Leaf]:
    """The weights of a tree with their paths; an `AdaptedWeight` is one."""
    found = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=lambda leaf: isinstance(leaf, AdaptedWeight)
    )[0]
    return [(tuple(key.key for key in keys), leaf) for keys, leaf in found]


class _Form(NamedTuple):
    """How a weight is kept."""

    declared: DeclaredWeight
    spec: PartitionSpec
    dtype: str
    int8: bool = False


def _put(variables: dict[str, Any], path: tuple[str, ...], leaf: Any, form: _Form) -> None:
    """Puts a weight among a module's variables, matrices in a collection of their own."""
    inputs = form.declared.inputs
    place = variables[MATRICES if inputs else "params"]
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = _matrix(leaf, form) if inputs else _array(leaf, form)


def _matrix(leaf: Any, form: _Form) -> Any:
    if isinstance(leaf, AdaptedWeight):
        frozen = _matrix(leaf.weight, form) if hasattr(leaf.weight, "at") else leaf.weight
        a, b = jnp.asarray(leaf.a), jnp.asarray(leaf.b)
        return AdaptedWeight(frozen, a, b, None, leaf.scale, 0.0)
    found = transposed(leaf, form.declared.inputs)
    rows = _array(found.rows, form)
    if not form.int8:
        return TransposedWeight(rows, found.shape)
    values, scale = quantize_rows(rows)
    return TransposedWeight(values, found.shape, scale)


def _array(array: Any, form: _Form) -> Array:
    """An array in the dtype, on the devices; what comes from the host over the mesh in force."""
    if not isinstance(array, np.ndarray):
        return jnp.asarray(array, form.dtype)
    # A copy, else JAX would take a strided view for its own.
    array = np.ascontiguousarray(array).astype(form.dtype, copy=False)
    if mesh_in_force().empty:
        return jnp.asarray(array)
    return jax.device_put(array, form.spec)
