"""For machines that have JAX, Flax, Optax and NumPy and little else."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any


class _Shape:
    """What stands for `Float`, `Int`, ... : an annotation that says nothing."""

    def __class_getitem__(cls, _: Any) -> type[_Shape]:
        return cls


def stand_in_for_jaxtyping() -> None:
    """Where jaxtyping is not installed, puts a module in its place whose types mean nothing.

    The project uses it in annotations only, so nothing else changes.
    """
    if sys.modules.get("jaxtyping") or _installed("jaxtyping"):
        return
    module = types.ModuleType("jaxtyping")
    module.__getattr__ = lambda name: _Shape  # type: ignore[method-assign]
    sys.modules["jaxtyping"] = module


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # refused: None stands in sys.modules
        return False
