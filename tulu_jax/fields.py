"""Settings: fields of frozen configs that state their default, check and help text in one place.

    learning_rate: float = setting(2e-5, above(0), macro="LEARNING_RATE", help="peak learning rate")

`check_fields` holds a config to what its fields state; `tulu train --help` prints it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tulu_jax.errors import ConfigError
from tulu_jax.files import user_path
from tulu_jax.places import Place, user_place

LARGEST = 2**32 - 1
"""No count, size or seed of a config is larger: arrays and random keys could not hold it."""

_WORDS = {
    Any: "value",
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
}


class Check(NamedTuple):
    """What a value must be besides its type: a test of it, and the words for that."""

    ok: Callable[[Any], bool]
    expected: str
    wrong: str = "is out of range"


def above(bound: float) -> Check:
    """A number above this."""
    return Check(lambda value: value > bound, f"a number above {bound}")


def least(bound: int) -> Check:
    """A number of at least this."""
    return Check(lambda value: value >= bound, f"{bound} or more")


def between(low: float, high: float, words: str = "a number") -> Check:
    """A number from `low` to `high`."""
    return Check(lambda value: low <= value <= high, f"{words} from {low:,} to {high:,}")


def divisor(whole: int, words: str) -> Check:
    """A number that divides `whole`, which is the `words`."""
    return Check(lambda value: whole % value == 0, f"a divisor of {words} {whole}")


def one_of(*names: str) -> Check:
    """One of these names."""
    return Check(lambda value: value in names, " or ".join(names), "is unknown")


PORTION = Check(lambda value: 0 < value <= 1, "a number above 0 and up to 1")
SHARE = Check(lambda value: 0 <= value < 1, "a share in [0, 1)")


def setting(
    default: Any = dataclasses.MISSING,
    check: Check | None = None,
    *,
    macro: str | None = None,
    help: str | None = None,
    path: bool | str = False,
    factory: Any = dataclasses.MISSING,
) -> Any:
    """A field of a config.

    Args:
      default: its value where none is given.
      check: what it must be, or of a mapping, each of its values. None in its place passes.
      macro: the name that `--gin.NAME=VALUE` and messages have for it.
      help: what it is.
      path: True where it names a file or folder: it becomes the path that its user means. "place"
        where that may be an address in a bucket, "model" where also one of a model of the Hub.
      factory: makes the default, in place of `default`.
    """
    metadata = {"check": check, "macro": macro, "help": help, "path": path}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def check_fields(config: object) -> None:
    """Refuses a field of a frozen config that is not what it declares; makes its paths absolute.

    A whole number is a float too; True is no number. Numbers must be finite, and whole ones lie
    within +-`LARGEST`.

    Raises:
      ConfigError: naming the field.
    """
    for field, hint in _hints(type(config)).items():
        value = getattr(config, field.name)
        _check_type(f"{type(config).__name__}.{field.name}", value, hint)
        if field.metadata.get("check") is not None:
            check_field(config, field.name, field.metadata["check"])
        if field.metadata.get("path") and value is not None:
            object.__setattr__(config, field.name, str(_place(field, value)))


def _place(field: dataclasses.Field, value: str) -> Place:
    name, kind = field.metadata["macro"] or field.name, field.metadata["path"]
    if kind is True:
        return user_path(value, name=name)
    return user_place(value, name=name, hub=kind == "model")


def check_field(config: object, name: str, check: Check) -> None:
    """Refuses a field that is not as `check` says; None passes.

    Raises:
      ConfigError: naming the field.
    """
    value = getattr(config, name)
    values = value.items() if isinstance(value, Mapping) else [(None, value)]
    for key, one in values:
        if one is not None and not check.ok(one):
            item = "" if key is None else f"[{key!r}]"
            raise ConfigError(
                f"{type(config).__name__}.{name}{item} {check.wrong}",
                got=repr(one),
                expected=check.expected,
            )


def _check_type(place: str, value: object, hint: Any) -> None:
    if not _fits(value, hint):
        words = _words(hint)
        choice = any(typing.get_origin(h) is typing.Literal for h in (hint, *typing.get_args(hint)))
        wrong = "is unknown" if choice else f"is not {words.removesuffix(', or None')}"
        raise ConfigError(f"{place} {wrong}", got=repr(value), expected=words)
    if isinstance(value, int | float) and not _is_usable(value):
        raise ConfigError(
            f"{place} is out of range",
            got=repr(value),
            expected=f"a finite number, of size {LARGEST:,} at most where it is whole",
        )


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
def _hints(kind: type) -> dict[dataclasses.Field, Any]:
    hints = typing.get_type_hints(kind)
    return {field: hints[field.name] for field in dataclasses.fields(kind)}


def _fits(value: Any, hint: Any) -> bool:
    """Whether the value is of the annotated type, containers' items included."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if kind is typing.Literal:
        return isinstance(value, str) and value in arguments
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
        return " or ".join(arguments)
    if kind in (tuple, list, collections.abc.Sequence):
        return f"a list, each item {_words(arguments[0])}"
    if kind is collections.abc.Mapping:
        return f"a mapping {{name: {_words(arguments[1])}}}"
    return _WORDS.get(hint) or f"@{hint.__name__}()"
