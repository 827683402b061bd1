"""The Hugging Face tensors of a model, the weights of ours in them, and their names in files.

A state dict that was saved through a wrapper has the wrapper in every name:

    _orig_mod.model.layers.0.self_attn.q_proj.weight     torch.compile
    module.model.norm.weight                             DataParallel
    base_model.model.model.norm.weight                   PEFT

What all names share and no name of the model has is taken off, and said. Names of which only some
have it are left alone: they are then missing, by name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

from tulu_jax.checkpoint.hf.families import hf_family
from tulu_jax.checkpoint.hf.weights import Shape, Tensor, Weight
from tulu_jax.models import ModelConfig

WRAPPERS = frozenset(
    ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
"""Parts of names that say how a module was run, wherever they stand: no model of ours has them."""

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
    """Name in a file -> name in the table, and what all names had before or in them, if any."""
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


def without_wrappers(
    names: Iterable[str], expected: Collection[str]
) -> tuple[dict[str, str], str | None]:
    """Each name -> the name without what all of them share, and what that was, for people.

    >>> without_wrappers(["module.a.b", "module.a.c"], {"a.b", "a.c"})
    ({'module.a.b': 'a.b', 'module.a.c': 'a.c'}, 'module.')

    Args:
      names: as the files have them.
      expected: those of the model.
    """
    names = list(names)
    plain = {name: _unwrapped(name) for name in names}
    prefix = _shared_prefix(plain.values(), set(expected))
    found = {name: short.removeprefix(prefix) for name, short in plain.items()}
    if all(name == short for name, short in found.items()):
        return found, None
    taken = sorted({part for name in names for part in name.split(".") if part in WRAPPERS})
    return found, " and ".join([*(f"{part}." for part in taken), *([prefix] if prefix else [])])


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _shared_prefix(names: Iterable[str], expected: set[str]) -> str:
    """The beginning of every name after which those that are known are as expected; or nothing."""
    names = list(names)
    found = Counter(before for name in names if (before := _before(name, expected)) is not None)
    prefix = found.most_common(1)[0][0] if found else ""
    return prefix if all(name.startswith(prefix) for name in names) else ""


def _before(name: str, expected: set[str]) -> str | None:
    """What stands before the longest end of a name that is expected."""
    parts = name.split(".")
    for count in range(len(parts)):
        if ".".join(parts[count:]) in expected:
            return "".join(f"{part}." for part in parts[:count])
    return None
