"""Low-rank adapters (LoRA) of any family: which weights have one, their shapes, how they apply.

An adapter's tree mirrors that of the weights it belongs to, with two leaves for each:

    layers/attention/query        [L, D, N, H]     frozen
    layers/attention/query/a      [L, D, r]        trained, drawn as PEFT draws it
    layers/attention/query/b      [L, r, N x H]    trained, 0 at first

so that training starts at the base model itself. Source: Hu et al. 2021, arXiv 2106.09685.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from tulu_jax.errors import ConfigError
from tulu_jax.fields import SHARE, Check, above, check_field, check_fields, one_of, setting
from tulu_jax.models.family import FAMILIES, ModelConfig, declared_weights
from tulu_jax.ops import AdaptedWeight, QuantizedWeight, dense, quantize
from tulu_jax.ops.quantized import KINDS, tile_of

Params = dict[str, Any]
Path = tuple[str, ...]

BASE_DTYPES = ("bfloat16", "float32", *KINDS)

MERGED_ROWS = 1024
"""Rows of a matrix that `merge` holds in float64 at one time."""


def known_targets() -> dict[str, tuple[str, ...]]:
    """Names that `LoraConfig.targets` may have -> our weights: ours, Hugging Face's, all-linear."""
    theirs = {name: own for kind in FAMILIES.values() for name, own in kind.linear_names.items()}
    ours = {name: (name,) for own in theirs.values() for name in own}
    return {**ours, **theirs, "all-linear": tuple(ours)}


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters instead of full fine-tuning.

    Defaults are open-instruct's (`finetune.py@e44fcf588`: rank 64, alpha 16, dropout 0.1, all
    matrices of the layers).

    Raises:
      ConfigError: a value outside its range, or an unknown target.
    """

    rank: int = setting(64, above(0), macro="LORA_RANK", help="rank of the adapters")
    alpha: float = setting(
        16.0, above(0), macro="LORA_ALPHA",
        help="the adapters' product counts LORA_ALPHA / LORA_RANK",
    )  # fmt: skip
    dropout: float = setting(
        0.1, SHARE, macro="LORA_DROPOUT", help="share of the adapters' inputs dropped in training"
    )
    targets: tuple[str, ...] = setting(
        ("all-linear",), macro="LORA_TARGETS", help="weights to adapt: ['all-linear'], "
        "or query, key, value, out, gate, up, down or their Hugging Face names, as ['q_proj']",
    )  # fmt: skip
    base_dtype: str = setting(
        "bfloat16", one_of(*BASE_DTYPES), macro="LORA_BASE_DTYPE",
        help="'bfloat16', 'float32', 'int8' or 'nf4': what frozen weights are kept in (8 and 4 "
        "bits those with an adapter beside them, bfloat16 the others)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Checks types and ranges; makes a list of targets a tuple."""
        if isinstance(self.targets, list):
            object.__setattr__(self, "targets", tuple(self.targets))
        check_fields(self)
        known = known_targets()
        some = Check(
            lambda names: bool(names) and set(names) <= set(known),
            f"one or more of {', '.join(known)}",
        )
        check_field(self, "targets", some)

    @property
    def quantized(self) -> bool:
        """Whether frozen weights are kept in 8 or 4 bits."""
        return self.base_dtype in KINDS

    @property
    def read_dtype(self) -> str:
        """The dtype that frozen weights are read in, and that their fingerprints are of."""
        return "bfloat16" if self.quantized else self.base_dtype

    @property
    def scale(self) -> float:
        """The factor of the adapter's product."""
        return self.alpha / self.rank

    @property
    def weights(self) -> frozenset[str]:
        """The targets in our names."""
        known = known_targets()
        return frozenset(own for name in self.targets for own in known[name])


@dataclasses.dataclass(frozen=True)
class AdapterShape:
    """The two factors beside one weight."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    a_axes: PartitionSpec
    b_axes: PartitionSpec


def adapter_shapes(config: ModelConfig, lora: LoraConfig) -> dict[Path, AdapterShape]:
    """For every weight that gets an adapter, the shapes and logical axes of its factors.

    All axes that a matrix sums over are joined, and so are the others.

    Raises:
      ConfigError: the model has no weight that a target names.
    """
    found: dict[Path, AdapterShape] = {}
    matrices = {
        path: box
        for path, box in declared_weights(config).items()
        if path[0] == "layers" and box.inputs
    }
    for path, box in matrices.items():
        if path[-1] not in lora.weights:
            continue
        sizes, axes, split = box.value.shape, box.names, 1 + box.inputs
        found[path] = AdapterShape(
            (sizes[0], math.prod(sizes[1:split]), lora.rank),
            (sizes[0], lora.rank, math.prod(sizes[split:])),
            PartitionSpec(axes[0], axes[1], None),
            PartitionSpec(axes[0], None, axes[split]),
        )
    known = known_targets()
    for target in lora.targets:
        if not any(path[-1] in known[target] for path in found):
            raise ConfigError(
                "the model has no weight of that name",
                got=f"LoraConfig.targets {target}",
                at=type(config).__name__,
                expected=" or ".join(sorted(path[-1] for path in matrices)),
            )
    return found


def abstract_adapters(config: ModelConfig, lora: LoraConfig) -> Params:
    """The tree of adapters as shapes and dtypes (float32)."""
    return _tree(
        (path, {name: jax.ShapeDtypeStruct(getattr(shape, name), jnp.float32) for name in "ab"})
        for path, shape in adapter_shapes(config, lora).items()
    )


def adapter_axes(config: ModelConfig, lora: LoraConfig) -> Params:
    """The tree of adapters with, for each factor, a PartitionSpec of logical axis names."""
    return _tree(
        (path, {"a": shape.a_axes, "b": shape.b_axes})
        for path, shape in adapter_shapes(config, lora).items()
    )


def init_adapters(config: ModelConfig, lora: LoraConfig, key: Array) -> Params:
    """Fresh adapters: `a` uniform within 1 / sqrt(inputs), as PEFT's Kaiming draw is; `b` 0."""
    found = []
    for number, (path, shape) in enumerate(adapter_shapes(config, lora).items()):
        bound = 1 / math.sqrt(shape.a[1])
        own = jax.random.fold_in(key, number)
        a = jax.random.uniform(own, shape.a, jnp.float32, -bound, bound)
        found.append((path, {"a": a, "b": jnp.zeros(shape.b, jnp.float32)}))
    return _tree(found)


def adapt(
    config: ModelConfig, lora: LoraConfig, base: Params, adapters: Params, key: Array | None = None
) -> Params:
    """The weights to run: the base with an `AdaptedWeight` where there is an adapter.

    Args:
      config: the model.
      lora: the adapters' settings.
      base: the frozen weights; no gradient flows into those that have an adapter.
      adapters: from `init_adapters` or a checkpoint.
      key: of this step's dropout; None runs without dropout. Each layer of each weight draws its
        own, so steps that have the same key drop the same inputs.
    """
    params = dict(base)
    for number, path in enumerate(adapter_shapes(config, lora)):
        drops = None
        if key is not None and lora.dropout:
            keys = jax.random.split(jax.random.fold_in(key, number), config.num_layers)
            drops = jax.random.key_data(keys)
        factors = at(adapters, path)
        weight = AdaptedWeight(
            at(base, path), factors["a"], factors["b"], drops, lora.scale, lora.dropout
        )
        params = _replaced(params, path, weight)
    return params


def quantize_base(config: ModelConfig, lora: LoraConfig, base: Params) -> Params:
    """The frozen weights with those quantised that have an adapter; they lie where they lay.

    The arrays that were given are freed, one after another.

    Raises:
      ConfigError: qwix is not installed.
    """
    for path, shape in adapter_shapes(config, lora).items():
        weight = at(base, path)
        place = QuantizedWeight(weight.sharding, scale_sharding(weight, shape), lora.base_dtype)
        small = jax.jit(partial(_quantize, kind=lora.base_dtype, shape=shape), out_shardings=place)
        base = _replaced(base, path, jax.block_until_ready(small(weight)))
        weight.delete()
    return base


def _quantize(weight: Array, *, kind: str, shape: AdapterShape) -> QuantizedWeight:
    """All layers quantised, one after another: qwix looks at whole arrays at a time."""
    inputs, outputs = shape.a[1], shape.b[2]

    def one(layer: Array) -> tuple[Array, Array]:
        small = quantize(layer[None], kind, inputs=inputs, outputs=outputs)
        return small.values[0], small.scale[0]

    values, scale = jax.lax.map(one, weight)
    return QuantizedWeight(values, scale, kind)


def scale_sharding(weight: Array, shape: AdapterShape) -> Any:
    """Scales lie as their weight does, as far as tiles and outputs can be split as it is."""
    if not isinstance(weight.sharding, NamedSharding):
        return weight.sharding
    inputs, outputs = shape.a[1], shape.b[2]
    mesh, spec = weight.sharding.mesh, (*weight.sharding.spec, *[None] * weight.ndim)
    first_output = next(i for i in range(2, weight.ndim) if math.prod(weight.shape[i:]) == outputs)

    def kept(rule: Any, size: int) -> Any:
        axes = (rule,) if isinstance(rule, str) else rule or ()
        return rule if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None

    tiles = kept(spec[1], inputs // tile_of(inputs))
    return NamedSharding(mesh, PartitionSpec(spec[0], tiles, kept(spec[first_output], outputs)))


def rounded(weight: np.ndarray, lora: LoraConfig, shape: AdapterShape) -> np.ndarray:
    """A frozen weight's layers [L, ...] as training multiplies by them, float32."""
    if not lora.quantized:
        return weight.astype(np.float32)
    small = jax.jit(partial(_quantize, kind=lora.base_dtype, shape=shape))(weight)
    return np.asarray(dense(small, np.float32)).reshape(weight.shape)


def merge(weight: np.ndarray, a: np.ndarray, b: np.ndarray, *, scale: float) -> np.ndarray:
    """`weight + scale * a @ b` layer by layer, in weight's shape [L, ...].

    Summed in float64 and rounded to float32 once, some rows at a time.
    """
    merged = weight.astype(np.float32)
    flat = merged.reshape(len(a), a.shape[1], b.shape[2])
    for layer in range(len(a)):
        right = b[layer].astype(np.float64)
        for start in range(0, a.shape[1], MERGED_ROWS):
            rows = slice(start, start + MERGED_ROWS)
            flat[layer, rows] = flat[layer, rows] + scale * (a[layer, rows] @ right)
    return merged


def num_adapter_params(config: ModelConfig, lora: LoraConfig) -> int:
    """Number of weights that are trained."""
    shapes = adapter_shapes(config, lora).values()
    return sum(math.prod(shape.a) + math.prod(shape.b) for shape in shapes)


def at(tree: Mapping[str, Any], path: Path) -> Any:
    """The leaf or sub-tree at `path`."""
    for name in path:
        tree = tree[name]
    return tree


def _replaced(tree: Mapping[str, Any], path: Path, leaf: Any) -> dict[str, Any]:
    """A copy of the tree, as far as it changes, with another leaf at `path`."""
    name, *rest = path
    return {**tree, name: _replaced(tree[name], tuple(rest), leaf) if rest else leaf}


def _leaves(tree: Mapping[str, Any], prefix: Path = ()) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    for name, child in tree.items():
        if isinstance(child, Mapping):
            found |= _leaves(child, (*prefix, name))
        else:
            found[(*prefix, name)] = child
    return found


def _tree(leaves: Any) -> Params:
    tree: Params = {}
    for path, leaf in leaves:
        place = tree
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = leaf
    return tree
