"""Checks that a config's fields hold what their annotations say, and its paths what users mean."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from tulu_jax.errors import ConfigError
from tulu_jax.files import user_path

LARGEST = 2**32 - 1
"""No count, size or seed of a config is larger: arrays and random keys could not hold it."""

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}


def check_field_types(config: object) -> None:
    """Refuses a field of a frozen config that holds another type than it declares.

    A whole number is a float too; True is no number. Numbers must be finite, and whole ones lie
    within +-`LARGEST`.

    Raises:
      ConfigError: naming the field.
    """
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        place = f"{type(config).__name__}.{name}"
        if not _fits(value, hint):
            words = _words(hint)
            raise ConfigError(
                f"{place} is not {words.removesuffix(', or None')}", got=repr(value), expected=words
            )
        if isinstance(value, int | float) and not _is_usable(value):
            raise ConfigError(
                f"{place} is out of range",
                got=repr(value),
                expected=f"a finite number, of size {LARGEST:,} at most where it is whole",
            )


def set_paths(config: object, **names: str) -> None:
    """Makes text fields of a frozen config the absolute paths that users mean; None stays.

    `names` are the fields, and what messages call them.

    Raises:
      ConfigError: a text that is no path (`user_path`).
    """
    for field, name in names.items():
        value = getattr(config, field)
        if value is not None:
            object.__setattr__(config, field, str(user_path(value, name=name)))


def check_used(config: object, reason: str, *names: str, unless: bool = False) -> None:
    """Refuses fields that differ from their defaults although nothing reads them.

    `reason` is the setting because of which they are not read; with `unless` they are.

    Raises:
      ConfigError: naming the field and the reason.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name in names:
        value = getattr(config, name)
        if value != defaults[name] and not unless:
            raise ConfigError(
                f"{type(config).__name__}.{name} has no effect",
                got=f"{value!r} with {reason}",
                expected=f"its default {defaults[name]!r} there",
                do="change one of the two",
            )


def _is_usable(value: float) -> bool:
    return abs(value) <= LARGEST if isinstance(value, int) else math.isfinite(value)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _fits(value: Any, hint: Any) -> bool:
    """Whether the value is of the annotated type, containers' items included."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if kind is typing.Literal:
        return isinstance(value, str)  # which one it must be, the config itself says
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if kind in (list, collections.abc.Sequence):
        is_list = isinstance(value, list | tuple)
        return is_list and all(_fits(item, arguments[0]) for item in value)
    if kind is collections.abc.Mapping:
        key, item = arguments
        is_mapping = isinstance(value, Mapping)
        return is_mapping and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (isinstance(value, bool) and hint is int)


def _words(hint: Any) -> str:
    """What a field of this annotation may hold, for a message."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "None"
    if kind in (typing.Union, types.UnionType):
        return ", or ".join(_words(one) for one in arguments)
    if kind is typing.Literal:
        return "text"
    if kind in (tuple, list, collections.abc.Sequence):
        return f"a list, each item {_words(arguments[0])}"
    if kind is collections.abc.Mapping:
        return "a mapping {name: value}"
    return _WORDS.get(hint) or f"@{hint.__name__}()"
