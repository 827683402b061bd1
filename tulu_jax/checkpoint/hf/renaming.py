"""Tensors under names that trainers put something before: which part, and the names without it.

A state dict that was saved through a wrapper has the wrapper in every name:

    _orig_mod.model.layers.0.self_attn.q_proj.weight     torch.compile
    module.model.norm.weight                             DataParallel
    base_model.model.model.norm.weight                   PEFT

What all names share and no name of the model has is taken off, and said. Names of which only some
have it are left alone: they are then missing, by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

WRAPPERS = frozenset(
    ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
"""Parts of names that say how a module was run, wherever they stand: no model of ours has them."""


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
