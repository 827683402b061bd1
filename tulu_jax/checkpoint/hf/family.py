"""Hugging Face's side of a family, `config.json` and tensors, and the registry of these.

Each file of `tulu_jax/checkpoint/hf/families` registers one, under the family's name in
`tulu_jax.models.FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tulu_jax.checkpoint.hf.fields import Fields
from tulu_jax.checkpoint.hf.weights import Tensor
from tulu_jax.models import ModelConfig


@dataclass(frozen=True)
class HfFamily:
    """Hugging Face's format of the models of one family."""

    name: str
    """Ours: `ModelConfig.family`."""
    architectures: Mapping[str, str]
    """Architecture -> model_type of the configs that are read; the first is written."""
    prefix: str
    """The beginning of tensors' names in the whole model that the bare one lacks."""
    from_hf: Callable[[Fields], ModelConfig]
    """The config that the fields of a `config.json` describe."""
    to_hf: Callable[[Any], dict[str, Any]]
    """The family's own fields of `config.json`."""
    table: tuple[Tensor, ...]
    """Every tensor that a model of the family may have."""

    @cached_property
    def embedding(self) -> str:
        """The tensor of the input embedding."""
        return self._holding("embedding")

    @cached_property
    def head(self) -> str:
        """The tensor of the output head, which a tied model's file may hold as well."""
        return self._holding("lm_head")

    def _holding(self, weight: str) -> str:
        return next(row.pattern for row in self.table if row.paths == ((weight,),))

    def module(self, part: str) -> str:
        """The torch module of a layer whose output is that of our `part`: self_attn, mlp, fc2 ...

        It is the first name after the layer's number in the last tensor of the part.
        """
        rows = [row for row in self.table if row.paths[0][:2] == ("layers", part)]
        return rows[-1].pattern.split("{layer}.")[1].split(".")[0]

    @property
    def layers(self) -> str:
        """The torch module that holds the layers."""
        return next(row.pattern.split(".{layer}")[0] for row in self.table if row.per_layer)


REGISTRY: dict[str, HfFamily] = {}
"""Our name of the family -> what Hugging Face has of it."""


def register(family: HfFamily) -> HfFamily:
    """Puts a family into the registry.

    Raises:
      ValueError: there is another of that name, or the table lacks the embedding or the head.
    """
    if family.name in REGISTRY:
        raise ValueError(f"family {family.name} is registered already")
    for weight in ("embedding", "lm_head"):
        if not any(row.paths == ((weight,),) for row in family.table):
            raise ValueError(
                f"family {family.name} has no row for {weight} in its table - expected one of "
                "each, as files of tied models may hold the head too"
            )
    REGISTRY[family.name] = family
    return family
