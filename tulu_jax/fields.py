"""A check that a config's fields hold what their annotations say."""

from __future__ import annotations

import dataclasses

from tulu_jax.errors import ConfigError

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "bool": ((bool,), "True or False"),
}


def check_field_types(config: object) -> None:
    """Refuses a field of a frozen config that holds another type than it declares.

    Looks at fields annotated int, float, str or bool, with or without `| None`; a whole number
    is a float too, True is no number.

    Raises:
      ConfigError: naming the field.
    """
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        declared = str(field.type)
        kind = declared.removesuffix(" | None")
        value = getattr(config, field.name)
        if kind not in _KINDS or (value is None and kind != declared):
            continue
        types, words = _KINDS[kind]
        if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
            raise ConfigError(
                f"{type(config).__name__}.{field.name} is not {words}",
                got=repr(value),
                expected=words + (", or None" if kind != declared else ""),
            )
