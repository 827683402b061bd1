"""One Hugging Face tensor, and the one or several of our weights that it holds.

The common difference is the order of axes: Hugging Face stores a matrix as [out, in], we store
[in, out] with heads as an axis of their own. Rotary channels are half-split on both sides, so
nothing is permuted.

    layers/attention/query [L, D, N, H]  <->  L tensors q_proj.weight [N*H, D]

With D = 2, one head of H = 3, and HF tensor

    q_proj.weight  [[a, b],      ours[layer, :, 0, :]  [[a, c, e],
                    [c, d],                             [b, d, f]]
                    [e, f]]

GPT-NeoX keeps query, key and value of a head side by side in one tensor: with two heads of H = 1
the rows of query_key_value are q0, k0, v0, q1, k1, v1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tulu_jax.checkpoint.reader import ParamPath
from tulu_jax.models import ModelConfig
from tulu_jax.models.family import declared_weights

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """The order of a tensor's numbers beside ours."""

    take: Callable[[np.ndarray, int, Shape], np.ndarray]
    """(tensor, which of its weights, our shape) -> our weight, a view where possible."""
    give: Callable[[Sequence[np.ndarray], Shape], np.ndarray]
    """(our weights, the tensor's shape) -> the tensor, a view where possible."""
    hf_shape: Callable[[Shape, int, int], Shape]
    """(shape of one of our weights, axes of it that its product sums over, how many weights) -> the
    tensor's shape."""


def _take_fused(tensor: np.ndarray, part: int, shape: Shape) -> np.ndarray:
    heads, width = shape[-2:]
    own = tensor.reshape(heads, -1, width, *tensor.shape[1:])[:, part]
    return own.transpose(2, 0, 1) if own.ndim == 3 else own


def _give_fused(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    rows = [array.transpose(1, 2, 0) if array.ndim == 3 else array for array in arrays]
    return np.stack(rows, axis=1).reshape(shape)


def _matrix_shape(shape: Shape, inputs: int, count: int) -> Shape:
    return (count * math.prod(shape[inputs:]), math.prod(shape[:inputs]))


def _joined_shape(shape: Shape, inputs: int, count: int) -> Shape:
    return _matrix_shape(shape, inputs, count) if inputs else (count * math.prod(shape),)


SAME = Order(
    lambda t, _, shape: t.reshape(shape),
    lambda arrays, shape: arrays[0].reshape(shape),
    lambda shape, *_: shape,
)
"""The same shape: tables."""
FLAT = Order(SAME.take, SAME.give, _joined_shape)
"""Biases and scales, in one axis there."""
TRANSPOSED = Order(
    lambda t, _, shape: t.T.reshape(shape),
    lambda arrays, shape: arrays[0].reshape(shape[::-1]).T,
    _matrix_shape,
)
"""A matrix, [out, in] there and [in, out] here."""
BY_HEAD = Order(_take_fused, _give_fused, _joined_shape)
"""Several weights head by head in one tensor: each head's rows of the first, then the second."""


@dataclass(frozen=True)
class Tensor:
    """One row of a family's table: a tensor of every layer, or of the whole model."""

    pattern: str
    """Name of the tensor; `{layer}` stands for the layer's number."""
    paths: tuple[ParamPath, ...]
    """The weights it holds."""
    order: Order

    def is_in(self, config: ModelConfig) -> bool:
        """Whether a model of the config has it: whether it declares the weights in it."""
        return self.paths[0] in declared_weights(config)

    def own_shape(self, config: ModelConfig) -> Shape:
        """The shape of each of the weights, of one layer."""
        return declared_weights(config)[self.paths[0]].value.shape[self.per_layer :]

    def hf_shape(self, config: ModelConfig) -> Shape:
        """The shape of the tensor, from those of the weights that the model declares."""
        inputs = declared_weights(config)[self.paths[0]].inputs
        return self.order.hf_shape(self.own_shape(config), inputs, len(self.paths))

    @property
    def per_layer(self) -> bool:
        """Whether each layer has its own."""
        return "{layer}" in self.pattern

    @property
    def weights(self) -> list[Weight]:
        """Our weights in it, in order."""
        return [Weight(path, self, part) for part, path in enumerate(self.paths)]

    def hf_names(self, config: ModelConfig) -> list[str]:
        """Its names in order of layers."""
        if not self.per_layer:
            return [self.pattern]
        return [self.pattern.format(layer=layer) for layer in range(config.num_layers)]

    def to_hf(self, arrays: Sequence[np.ndarray], config: ModelConfig) -> np.ndarray:
        """The tensor of one layer from that layer of each of its weights."""
        return self.order.give(arrays, self.hf_shape(config))


@dataclass(frozen=True)
class Weight:
    """One of our weights, and the tensor that holds it."""

    path: ParamPath
    tensor: Tensor
    part: int = 0
    """Its place among the tensor's weights."""

    def shape(self, config: ModelConfig) -> Shape:
        """Its shape, [L, ...] where every layer has one."""
        return declared_weights(config)[self.path].value.shape

    def from_hf(self, tensor: np.ndarray, shape: Shape) -> np.ndarray:
        """One layer of our weight, of `shape`, from its tensor (a view where possible)."""
        return self.tensor.order.take(tensor, self.part, shape)


def vector(pattern: str, path: str) -> Tensor:
    """A bias or scale."""
    return Tensor(pattern, (tuple(path.split("/")),), FLAT)


def table(pattern: str, path: str) -> Tensor:
    """A table whose rows are looked up, stored as ours."""
    return Tensor(pattern, (tuple(path.split("/")),), SAME)


def matrix(pattern: str, path: str) -> Tensor:
    """A matrix, stored transposed."""
    return Tensor(pattern, (tuple(path.split("/")),), TRANSPOSED)


def layer_norm(name: str, path: str) -> tuple[Tensor, Tensor]:
    """Scale and bias of a norm."""
    return vector(f"{name}.weight", f"{path}/scale"), vector(f"{name}.bias", f"{path}/bias")


def dense(name: str, path: str) -> tuple[Tensor, Tensor]:
    """A matrix and its bias."""
    return matrix(f"{name}.weight", path), vector(f"{name}.bias", f"{path}_bias")


def by_head(pattern: str, *paths: str) -> Tensor:
    """A tensor that holds several weights head by head."""
    return Tensor(pattern, tuple(tuple(path.split("/")) for path in paths), BY_HEAD)
