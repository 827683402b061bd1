"""How one Hugging Face tensor holds one or several of our weights.

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tulu_jax.checkpoint.arrays import ParamPath

Shape = tuple[int, ...]
HfShape = Callable[[Any], Shape]
"""From a family's config to a shape."""


@dataclass(frozen=True)
class Order:
    """How the numbers of a tensor are ordered beside ours."""

    take: Callable[[np.ndarray, int, Shape], np.ndarray]
    """(tensor, which of its weights, our shape) -> our weight, a view where possible."""
    give: Callable[[Sequence[np.ndarray], Shape], np.ndarray]
    """(our weights, the tensor's shape) -> the tensor, a view where possible."""


def _take_fused(tensor: np.ndarray, part: int, shape: Shape) -> np.ndarray:
    heads, width = shape[-2:]
    own = tensor.reshape(heads, -1, width, *tensor.shape[1:])[:, part]
    return own.transpose(2, 0, 1) if own.ndim == 3 else own


def _give_fused(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    rows = [array.transpose(1, 2, 0) if array.ndim == 3 else array for array in arrays]
    return np.stack(rows, axis=1).reshape(shape)


SAME = Order(lambda t, _, shape: t.reshape(shape), lambda arrays, shape: arrays[0].reshape(shape))
"""The same order: vectors and embeddings."""
TRANSPOSED = Order(
    lambda t, _, shape: t.T.reshape(shape), lambda arrays, shape: arrays[0].reshape(shape[::-1]).T
)
"""A matrix, [out, in] there and [in, out] here."""
BY_HEAD = Order(_take_fused, _give_fused)
"""Several weights head by head in one tensor: each head's rows of the first, then the second."""


@dataclass(frozen=True)
class Tensor:
    """One row of a family's table: a tensor of every layer, or of the whole model."""

    pattern: str
    """Name of the tensor; `{layer}` stands for the layer's number."""
    hf_shape: HfShape
    paths: tuple[ParamPath, ...]
    """The weights it holds."""
    order: Order
    own_shape: HfShape
    """From a config to the shape of each of the weights, of one layer."""
    when: Callable[[Any], bool] = lambda _: True
    """Whether a model of a config has it."""

    @property
    def per_layer(self) -> bool:
        """Whether each layer has its own."""
        return "{layer}" in self.pattern

    @property
    def weights(self) -> list[Weight]:
        """Our weights in it, in order."""
        return [Weight(path, self, part) for part, path in enumerate(self.paths)]

    def hf_names(self, config: Any) -> list[str]:
        """Its names in order of layers."""
        if not self.per_layer:
            return [self.pattern]
        return [self.pattern.format(layer=layer) for layer in range(config.num_layers)]

    def to_hf(self, arrays: Sequence[np.ndarray], config: Any) -> np.ndarray:
        """The tensor of one layer from that layer of each of its weights."""
        return self.order.give(arrays, self.hf_shape(config))


@dataclass(frozen=True)
class Weight:
    """One of our weights, and the tensor that holds it."""

    path: ParamPath
    tensor: Tensor
    part: int = 0
    """Which of the tensor's weights it is."""

    @property
    def pattern(self) -> str:
        """Name of the tensor; `{layer}` stands for the layer's number."""
        return self.tensor.pattern

    @property
    def per_layer(self) -> bool:
        """Whether one tensor holds one layer of the weight."""
        return self.tensor.per_layer

    def hf_names(self, config: Any) -> list[str]:
        """The tensors that together make the weight, in order of layers."""
        return self.tensor.hf_names(config)

    def shape(self, config: Any) -> Shape:
        """Its shape, [L, ...] where every layer has one; told without tracing the model."""
        shape = self.tensor.own_shape(config)
        return (config.num_layers, *shape) if self.per_layer else shape

    def from_hf(self, tensor: np.ndarray, shape: Shape) -> np.ndarray:
        """One layer of our weight, of `shape`, from its tensor (a view where possible)."""
        return self.tensor.order.take(tensor, self.part, shape)


def vector(
    pattern: str, path: str, hf_shape: HfShape, ours: HfShape | None = None, **options: Any
) -> Tensor:
    """A tensor in the same order as ours; `ours` is our shape if that splits an axis."""
    return Tensor(pattern, hf_shape, (tuple(path.split("/")),), SAME, ours or hf_shape, **options)


def matrix(
    pattern: str, path: str, hf_shape: HfShape, ours: HfShape | None = None, **options: Any
) -> Tensor:
    """A matrix that is stored transposed; `ours` is our shape if that splits an axis."""
    own_shape = ours or (lambda config: hf_shape(config)[::-1])
    return Tensor(pattern, hf_shape, (tuple(path.split("/")),), TRANSPOSED, own_shape, **options)
