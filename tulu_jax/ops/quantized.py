"""A frozen weight in 8 or 4 bits, by qwix: an optional package, imported when first needed."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tulu_jax.errors import ConfigError

KINDS = ("int8", "nf4")
"""The kinds that `quantize` knows: 8-bit integers, and the 4-bit numbers of QLoRA."""

TILE = 64
"""Most numbers that share a scale, as in QLoRA: 4.5 bits a weight in nf4, with float32 scales."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedWeight:
    """Stands where an array stood; `dense` gives its numbers back, rounded.

    `values` comes first among the leaves and keeps the weight's shape, because Flax compares the
    first leaf's shape with the one the module declares. Both may have an axis of layers in front.
    """

    values: Any
    """int8, or indices into the 16 numbers of nf4 as uint4, in the weight's shape."""
    scale: Any
    """[in / tile, out], float32: what the numbers of a tile of inputs are multiplied by."""
    kind: str = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight itself."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """The number of axes of the weight itself."""
        return self.values.ndim

    @property
    def dtype(self) -> Any:
        """The dtype of the numbers it stands for."""
        return self.scale.dtype

    def reshape(self, *shape: int) -> QuantizedWeight:
        """The same in another shape; inputs and outputs must stay what they are."""
        return dataclasses.replace(self, values=self.values.reshape(*shape))


def quantize(weight: Array, kind: str, *, inputs: int, outputs: int) -> QuantizedWeight:
    """A weight of layers [L, ...] rounded, with a scale for every tile of inputs of an output.

    Tiles are of the largest number up to 64 that divides the inputs; a tile's scale makes its
    largest number 1 in nf4, and 127.5 in int8, which keeps 127. A tile of four in nf4:

        weights  0.5  -0.1  0.02  -0.5        scale 0.5
        rounded  0.5  -0.0924  0.0398  -0.5   (1, -0.1848, 0.0796 and -1 times the scale)

    Args:
      weight: [L, ...], whose other axes are inputs x outputs numbers.
      kind: one of `KINDS`.
      inputs: numbers that a product sums over.
      outputs: the others.

    Raises:
      ConfigError: qwix is not installed.

    Source: Dettmers et al. 2023, arXiv 2305.14314, sections 3 and appendix E.
    """
    matrix = weight.reshape(weight.shape[0], inputs, outputs).astype(jnp.float32)
    found = qwix().quantize(matrix, kind, channelwise_axes=(0, 2), tiled_axes={1: tile_of(inputs)})
    return QuantizedWeight(found.qvalue.reshape(weight.shape), found.scale, kind)


def quantize_rows(rows: Float[Array, "out A"]) -> tuple[Int[Array, "out A"], Float[Array, " out"]]:
    """A matrix stored output by output as int8 numbers, and a scale for each output.

    An output's largest number becomes 127, of 127.5. The scale is that of all inputs, not of a
    tile, since the product can then take the whole numbers and be scaled once: for decoding, which
    waits for the weights to come from memory.

    Raises:
      ConfigError: qwix is not installed.
    """
    found = qwix().quantize(jnp.asarray(rows, jnp.float32), "int8", channelwise_axes=(0,))
    return found.qvalue, found.scale[:, 0]


def dense(weight: QuantizedWeight, dtype: Any) -> Array:
    """The numbers that a quantised weight stands for, [..., in, out] in `dtype`."""
    *layers, _, outputs = weight.scale.shape
    inputs = math.prod(weight.shape) // math.prod(layers) // outputs
    array = qwix().QArray(
        weight.values.reshape(*layers, inputs, outputs), weight.scale, None, weight.kind
    )
    return qwix().dequantize(array).astype(dtype)


def tile_of(inputs: int) -> int:
    """The number of inputs that share a scale: 64 of 4096, 43 of 172."""
    return max(size for size in range(1, TILE + 1) if inputs % size == 0)


def qwix() -> Any:
    """The package.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("qwix")
    except ImportError as error:
        raise ConfigError(
            "weights cannot be kept in 8 or 4 bits",
            got=f"no package qwix ({error})",
            expected=f"it for {' or '.join(KINDS)}",
            do="pip install 'tulu-jax[qlora]', or keep weights in bfloat16",
        ) from error
