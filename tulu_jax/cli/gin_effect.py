"""Refuses settings of a user's own that nothing in the run reads: they would change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tulu_jax.cli.gin_files import MACRO, Binding, used_bindings
from tulu_jax.errors import ConfigError

_SWITCHES = {"LoraConfig": "add --gin.LORA=@LoraConfig()", "RopeScaling": "set rope_scaling"}
"""How a run comes to have what only some runs have."""


def check_effect(bindings: Iterable[Binding], fields: Mapping[str, Sequence[str]]) -> None:
    """Passes when every setting of the user's own was read in making the run's config.

    Recipes of the project may bind more: their defaults are for every kind of run. `fields` are
    those that each macro is meant for. Call it after the config is made.

    Raises:
      ConfigError: naming the first setting without effect, and what would read it.
    """
    bindings = list(bindings)
    used = used_bindings()
    for one in bindings:
        if one.own and not any(
            key[1:] == one.key[1:] and _within(key[0], one.scope) for key in used
        ):
            readers = [other.kind for other in bindings if one.scope in other.macros]
            there = {kind for _, kind, _ in used}
            absent = [
                kind for kind in (readers if one.kind == MACRO else [one.kind]) if kind not in there
            ]
            raise _no_effect(one, absent, fields.get(one.scope, ()))


def _within(where: str, scope: str) -> bool:
    """Whether a binding of `scope` counts in the scope `where`."""
    return not scope or where == scope or where.startswith(scope + "/")


def _no_effect(one: Binding, absent: Sequence[str], fields: Sequence[str]) -> ConfigError:
    if absent:
        expected = f"a run with {absent[0]}, which alone reads it"
        do = f"{_SWITCHES.get(absent[0], 'change the run')}, or leave the setting out"
    elif one.scope and one.kind != MACRO:
        expected = f"no scope: nothing in the run is in scope {one.scope!r}"
        do = "leave the scope out"
    else:
        expected = f"{' or '.join(fields) or 'a setting'} to read it, which is set by itself"
        do = f"set --gin.{fields[0]}=..., or leave the other out" if fields else "leave it out"
    return ConfigError("setting has no effect", got=one.line, expected=expected, do=do)
