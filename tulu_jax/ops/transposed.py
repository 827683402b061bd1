"""A matrix stored output by output, as products with few rows want it: for generation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEW_ROWS = 64
"""Up to so many rows the product is computed as `stored @ x.T`: for 16 rows in float32 XLA does 64
GFLOP/s so on 2 CPU cores, 42 as `x @ stored.T` and 27 as `x @ weight`; for 64 rows 115, 100, 97."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TransposedWeight:
    """Stands where an array [in, ...out] stood; `linear` multiplies by it.

    Hugging Face stores linear layers this way round too.
    """

    rows: Any
    """[out, in]: what each output sums its inputs with."""
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    """The shape of the weight it stands for."""
    scale: Any = None
    """[out], float32: what an output's whole numbers in `rows` are multiplied by; None where they
    are the weight's own numbers."""

    @property
    def ndim(self) -> int:
        """The number of axes of the weight it stands for."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of its numbers."""
        return self.rows.dtype

    def reshape(self, *shape: int) -> TransposedWeight:
        """The same; inputs and outputs stay what they are."""
        del shape
        return self


def product(
    x: Float[Array, "*batch A"], weight: TransposedWeight, dtype: Any = None
) -> Float[Array, "*batch out"]:
    """`x` times the weight that `weight` stands for, in `dtype` (x's own where that is None).

    x = [1 2], rows = [[1 0]
                       [0 1]
                       [1 1]]     ->   [1 2 3]
    """
    wanted = dtype or x.dtype
    flat = x.reshape(-1, x.shape[-1])
    if weight.scale is None:
        out = _product(flat, weight.rows.astype(x.dtype), wanted)
    else:
        # The barrier keeps the rounded form in memory: in a loop XLA would unpack it once before.
        rows, flat = jax.lax.optimization_barrier((weight.rows, flat))
        out = _product(flat, rows.astype(x.dtype), jnp.float32) * weight.scale
    return out.astype(wanted).reshape(*x.shape[:-1], out.shape[-1])


def _product(flat: Array, rows: Array, dtype: Any) -> Array:
    over = (((1,), (1,)), ((), ()))
    if flat.shape[0] > FEW_ROWS:
        return jax.lax.dot_general(flat, rows, over, preferred_element_type=dtype)
    out = jax.lax.dot_general(rows, flat, over, preferred_element_type=dtype)
    # Without the barrier XLA turns this into the other form.
    return jax.lax.optimization_barrier(out).T


def transposed(weight: Array, inputs: int) -> TransposedWeight:
    """A matrix [...in, ...out] stored output by output.

    Args:
      weight: the matrix.
      inputs: the number of its axes, from the first on, that a product sums over.
    """
    count = math.prod(weight.shape[:inputs])
    return TransposedWeight(weight.reshape(count, -1).T, weight.shape)
