"""The base of every family's config, and the registry of families.

A family is one file of `tulu_jax/models/families`: its config, which is the entry of the registry,
and its Flax module. Configs as JSON values are in every checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_fields
from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.weight import DeclaredWeight


class ModelConfig:
    """A model: its sizes, special tokens and constants; every family's config is a subclass.

    Numbers of weights are counted from what the family's module declares.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    """Every family's config is a dataclass."""
    family: ClassVar[str]
    """Name of the family in checkpoints: llama, opt, neox ..."""
    linear_names: ClassVar[Mapping[str, tuple[str, ...]]]
    """Hugging Face's names of the matrices in a layer -> our weights in each."""
    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """Key/value heads; num_heads / num_kv_heads query heads share one."""
    head_dim: int
    max_length: int
    """Longest sequence in tokens the model was made for."""
    learned_positions: ClassVar[bool] = False
    """Whether there is a learned vector for each position, and so no more than max_length."""
    tie_embeddings: bool
    """Whether the output head is the input embedding."""
    bos_id: int | None
    eos_id: int
    pad_id: int | None

    def decoder(self, compute: ComputeConfig) -> nn.Module:
        """The Flax module, up to its final states; it is called as `models.decoder.Decoder`."""
        raise NotImplementedError

    @property
    def embedding_width(self) -> int:
        """Channels of a row of the embedding and of what the output head multiplies."""
        return self.d_model

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a text when generating."""
        return (self.eos_id,)

    @property
    def layer_parts(self) -> tuple[str, ...]:
        """The parts of a layer in the order they run, by the names of their weights."""
        return ("attention_norm", "attention", "mlp_norm", "mlp")

    @property
    def num_params(self) -> int:
        """Number of weights."""
        return sum(math.prod(box.value.shape) for box in declared_weights(self).values())

    @property
    def num_head_params(self) -> int:
        """Weights of the output head."""
        path = ("embedding",) if self.tie_embeddings else ("lm_head",)
        return math.prod(declared_weights(self)[path].value.shape)

    @property
    def num_matmul_params(self) -> int:
        """Weights that take part in matrix products, the output head included."""
        boxes = declared_weights(self).values()
        found = sum(math.prod(box.value.shape) for box in boxes if box.inputs)
        return found + (self.num_head_params if self.tie_embeddings else 0)

    @property
    def num_layer_matmul_params(self) -> int:
        """Weights of one layer's matrices."""
        return sum(one.weights for one in layer_matrices(self).values())


class EvenHeads(ModelConfig):
    """A config of a family whose heads share the width, each with a key/value head of its own."""

    @property
    def num_kv_heads(self) -> int:
        """Key/value heads: as many as query heads."""
        return self.num_heads

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.d_model // self.num_heads


class MatrixSize(NamedTuple):
    """A matrix of one layer, its axes joined to two."""

    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """Number of its weights."""
        return self.inputs * self.outputs


def layer_matrices(config: ModelConfig) -> dict[str, MatrixSize]:
    """The matrices of one layer by path below it: attention/query, mlp/up ..."""
    found = {}
    for path, box in declared_weights(config).items():
        if path[0] == "layers" and box.inputs:
            sizes = box.value.shape[1:]
            inputs, outputs = sizes[: box.inputs], sizes[box.inputs :]
            found["/".join(path[1:])] = MatrixSize(math.prod(inputs), math.prod(outputs))
    return found


@lru_cache
def declared_tree(config: ModelConfig) -> dict[str, Any]:
    """The tree of weights as the module declares them, with shapes in the place of arrays."""
    return jax.eval_shape(lambda: init_boxed(config, jax.random.key(0)))


def init_boxed(config: ModelConfig, key: Any) -> Any:
    """Fresh weights, each in its `DeclaredWeight`."""
    row = jnp.zeros((1, 2), jnp.int32)
    return config.decoder(ComputeConfig()).init(key, row, row, row)["params"]


@lru_cache
def declared_weights(config: ModelConfig) -> dict[tuple[str, ...], DeclaredWeight]:
    """Path -> weight as it is declared, shapes in the place of arrays.

    Raises:
      TypeError: a weight of the module was made by other means than `models.weight`.
    """
    found = {}
    boxed = jax.tree_util.tree_leaves_with_path(
        declared_tree(config), is_leaf=lambda leaf: isinstance(leaf, DeclaredWeight)
    )
    for keys, box in boxed:
        path = tuple(key.key for key in keys)
        if not isinstance(box, DeclaredWeight):
            raise TypeError(f"weight {'/'.join(path)} is not declared by matrix, table or vector")
        found[path] = box
    return found


FAMILIES: dict[str, type[ModelConfig]] = {}
"""The registry: name -> config of the family."""

Config = TypeVar("Config", bound=type[ModelConfig])


def register(config: Config) -> Config:
    """Puts a family into the registry; it decorates the family's config.

    Raises:
      ValueError: there is another family of that name.
    """
    known = FAMILIES.setdefault(config.family, config)
    if known is not config:
        raise ValueError(f"family {config.family} is registered already, as {known.__name__}")
    return config


def check_sizes(config: ModelConfig, *names: str) -> None:
    """Refuses fields of another type than declared, and sizes that are not above 0.

    Raises:
      ConfigError: naming the field; `names` are looked at besides those of every family.
    """
    check_fields(config)
    shared = ("vocab_size", "d_model", "d_ff", "num_layers", "num_heads", "max_length")
    for name in (*shared, *names):
        if not getattr(config, name) > 0:
            raise ConfigError(
                f"{name} of the model is impossible",
                got=getattr(config, name),
                expected="a number above 0",
                do=f"look at {type(config).__name__}.{name} or the model's config.json",
            )


def check_heads_divide(config: ModelConfig) -> None:
    """Refuses a width that the heads cannot share.

    Raises:
      ConfigError: num_heads does not divide d_model.
    """
    if config.d_model % config.num_heads:
        raise ConfigError(
            "heads cannot share the model's width evenly",
            got=f"d_model={config.d_model}, num_heads={config.num_heads}",
            expected="num_heads to divide d_model",
        )


def nested_fields(family: type[ModelConfig]) -> dict[str, type]:
    """Fields that hold a dataclass of their own: rope_scaling -> RopeScaling."""
    hints = typing.get_type_hints(family)
    return {
        name: kind
        for name, hint in hints.items()
        for kind in typing.get_args(hint)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type)
    }


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as JSON values, with the name of its family under `family`.

    >>> from tulu_jax.models import NeoxConfig
    >>> pythia = NeoxConfig(64, 32, 128, 2, 4, 128, 1e-5, 0.25)
    >>> config_from_dict(config_to_dict(pythia)) == pythia
    True
    """
    fields = dataclasses.asdict(typing.cast(Any, config))
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
    return {"family": config.family, **fields, **lists}


def config_from_dict(fields: Mapping[str, Any]) -> ModelConfig:
    """The config that `config_to_dict` wrote; without `family`, as once, a LLaMA.

    Raises:
      ConfigError: an unknown family, a field too many or too few, or a value out of range.
    """
    values = dict(fields)
    name = values.pop("family", "llama")
    if name not in FAMILIES:
        raise ConfigError(
            "family of the model is unknown", got=repr(name), expected=" or ".join(FAMILIES)
        )
    family: Any = FAMILIES[name]
    for field, kind in nested_fields(family).items():
        if isinstance(values.get(field), Mapping):
            values[field] = kind(**values[field])
    for field, value in values.items():
        values[field] = tuple(value) if isinstance(value, list) else value
    try:
        return family(**values)
    except TypeError as error:
        names = ", ".join(field.name for field in dataclasses.fields(family))
        raise ConfigError(
            f"fields of a {name} config are wrong", got=error, expected=names
        ) from error
