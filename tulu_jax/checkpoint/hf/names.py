"""The Hugging Face tensors of a model, and the weights of ours that they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tulu_jax.checkpoint.hf.families import hf_family
from tulu_jax.checkpoint.hf.renaming import without_wrappers
from tulu_jax.checkpoint.hf.weights import Shape, Tensor, Weight
from tulu_jax.models import ModelConfig

HARMLESS = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|attention\.(bias|masked_bias)|decoder\.version)$"
)
"""Tensors that old exports carry and that config.json already determines: rotary rates, causal
masks, the version of a format."""


def tensors_of(config: ModelConfig) -> list[Tensor]:
    """The rows of its family's table that a model of this config has."""
    return [tensor for tensor in hf_family(config).table if tensor.is_in(config)]


def weights_of(config: ModelConfig) -> list[Weight]:
    """All our weights, with the tensors that hold them; weights of one tensor come in a row."""
    return [weight for tensor in tensors_of(config) for weight in tensor.weights]


def expected_tensors(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor a checkpoint of this config holds, with its shape."""
    return {
        name: tensor.hf_shape(config)
        for tensor in tensors_of(config)
        for name in tensor.hf_names(config)
    }


def tensor_names(config: ModelConfig, names: Iterable[str]) -> tuple[dict[str, str], str | None]:
    """Name in a file -> name in the table, and what all names had before or in them, if anything.

    See `renaming` and `canonical_names`.
    """
    expected, family = set(expected_tensors(config)), hf_family(config)
    bare = {name.removeprefix(family.prefix) for name in expected}
    short, taken = without_wrappers(names, expected | bare | {family.head})
    table = canonical_names(config, short.values())
    return {name: table[plain] for name, plain in short.items()}, taken


def canonical_names(config: ModelConfig, names: Iterable[str]) -> dict[str, str]:
    """Name in a file -> name in the table.

    Files of the bare model lack the prefix (`decoder.` for `model.decoder.` in old OPT files), and
    transformers 5 calls GPT-NeoX's head `lm_head` in memory.
    """
    names, family = list(names), hf_family(config)
    bare = not any(name.startswith(family.prefix) for name in names)
    found = {}
    for name in names:
        if name in (family.head, "lm_head.weight"):
            found[name] = family.head
        else:
            found[name] = family.prefix + name if bare else name
    return found
