"""Terms that a run may add to its loss, one file each, found by being here (docs/add_a_loss.md)."""

import importlib
import pkgutil
from collections.abc import Callable

from jaxtyping import Array

from tulu_jax.axes import Batch

LossTerm = Callable[[Batch, Array, Array, Array, Array], Array]
"""(batch, targets [B, T], weights [B, T], final states [B, T, D], head [D, V]) -> a weighted sum
over positions."""

TERMS: dict[str, LossTerm] = {}
"""Terms by the names that `TrainConfig.loss_terms` gives factors to."""


def register(name: str) -> Callable[[LossTerm], LossTerm]:
    """Puts a function among `TERMS`.

    Raises:
      ValueError: there is another of that name.
    """

    def put(term: LossTerm) -> LossTerm:
        if TERMS.setdefault(name, term) is not term:
            raise ValueError(f"loss term {name} is registered already")
        return term

    return put


for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)
