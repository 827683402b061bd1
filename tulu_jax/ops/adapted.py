"""A frozen weight with a low-rank adapter beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AdaptedWeight:
    """Stands in a tree of weights where an array stood; `linear` multiplies by all of it.

    The product is `x @ weight + scale * (dropped(x) @ a) @ b`, and no gradient flows into `weight`.
    `weight` comes first among the leaves, because Flax compares the first leaf's shape with the
    one the module declares. Arrays may have an axis of layers in front, as scanned weights do.

    Source: Hu et al. 2021, arXiv 2106.09685, section 4.1.
    """

    weight: Any
    """The frozen weight: an array of any floating dtype, or a `QuantizedWeight`."""
    a: Any
    """[in, rank], float32."""
    b: Any
    """[rank, out], float32."""
    key: Any
    """Key data uint32[2] of the dropout on the adapter's input, or None for none."""
    scale: float = dataclasses.field(metadata={"static": True})
    rate: float = dataclasses.field(metadata={"static": True})
    """Share of the adapter's inputs that dropout sets to 0; the others grow by 1 / (1 - rate)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight itself."""
        return self.weight.shape

    @property
    def ndim(self) -> int:
        """The number of axes of the weight itself."""
        return self.weight.ndim

    @property
    def dtype(self) -> Any:
        """The dtype of the weight itself."""
        return self.weight.dtype

    def reshape(self, *shape: int) -> AdaptedWeight:
        """The same with the weight reshaped; inputs and outputs must stay what they are."""
        return dataclasses.replace(self, weight=self.weight.reshape(*shape))
