"""Refuses settings of a user's own that nothing in the run reads: they would change nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gin import config as gin_internals
from gin import config_parser

from tulu_jax.errors import ConfigError
from tulu_jax.files import real_path

_SWITCHES = {"LoraConfig": "add --gin.LORA=@LoraConfig()", "RopeScaling": "set rope_scaling"}
"""How a run comes to have what only some runs have."""


def check_effect(files: Sequence[str], bindings: Sequence[str], *, shipped: Path) -> None:
    """Passes when everything bound in `files` and `bindings` was read in making the run's config.

    Files in the folder `shipped` may bind more: their defaults are for every kind of run. Call it
    after the config is made.

    Raises:
      ConfigError: naming the first setting without effect, and what would read it.
    """
    used = [
        (scope, selector.rsplit(".", 1)[-1], name)
        for (scope, selector), values in gin_internals._OPERATIVE_CONFIG.items()
        for name in values
    ]
    for statement in _own_statements(files, bindings, shipped):
        macro = not statement.arg_name
        name = f"{statement.scope}/{statement.selector}".lstrip("/")
        scope = name if macro else statement.scope
        selector = "macro" if macro else statement.selector.rsplit(".", 1)[-1]
        field = statement.arg_name or "value"
        if not any(
            (kind, at) == (selector, field) and _within(where, scope) for where, kind, at in used
        ):
            raise _no_effect(statement, _readers(name) if macro else [selector], used, shipped)


def _own_statements(
    files: Sequence[str], bindings: Sequence[str], shipped: Path
) -> Iterator[config_parser.BindingStatement]:
    """What the user's own files, those they include, and the command line bind."""
    texts = list(bindings)
    for file in files:
        path = Path(file)
        if path.is_file() and real_path(shipped) not in real_path(path).parents:
            texts.append(path.read_text(encoding="utf-8-sig"))
    for text in texts:
        for statement in config_parser.ConfigParser(text, gin_internals.ParserDelegate()):
            if isinstance(statement, config_parser.BindingStatement):
                yield statement
            elif isinstance(statement, config_parser.IncludeStatement):
                yield from _own_statements([statement.filename], [], shipped)


def _within(where: str, scope: str) -> bool:
    """Whether a binding of `scope` counts in the scope `where`."""
    return not scope or where == scope or where.startswith(scope + "/")


def _readers(macro: str) -> list[str]:
    """The configurables that have a field set to this macro, by their short names."""
    return [
        selector.rsplit(".", 1)[-1]
        for (_, selector), values in gin_internals._CONFIG.items()
        if any(
            isinstance(value, gin_internals.ConfigurableReference)
            and value.scoped_selector == f"{macro}/gin.macro"
            for value in values.values()
        )
    ]


def _fields(macro: str, shipped: Path) -> list[str]:
    """The fields that the defaults set to this macro, such as `TrainConfig.model_dir`."""
    text = (shipped / "runs" / "finetune.gin").read_text(encoding="utf-8")
    return re.findall(rf"^(\w+\.\w+) = %{re.escape(macro)}$", text, re.MULTILINE)


def _no_effect(
    statement: config_parser.BindingStatement,
    readers: list[str],
    used: list[tuple[str, str, str]],
    shipped: Path,
) -> ConfigError:
    there = {kind for _, kind, _ in used}
    absent = [reader for reader in readers if reader not in there]
    if absent:
        expected = f"a run with {absent[0]}, which alone reads it"
        do = f"{_SWITCHES.get(absent[0], 'change the run')}, or leave the setting out"
    elif statement.scope and statement.arg_name:
        expected = f"no scope: nothing in the run is in scope {statement.scope!r}"
        do = "leave the scope out"
    else:
        fields = _fields(statement.selector, shipped)
        expected = f"{' or '.join(fields) or 'a setting'} to read it, which is set by itself"
        do = f"set --gin.{fields[0]}=..., or leave the other out" if fields else "leave it out"
    return ConfigError(
        "setting has no effect", got=statement.location.line_content.strip(),
        expected=expected, do=do,
    )  # fmt: skip
