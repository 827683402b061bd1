"""gin files as what they bind, statement by statement: every name is known, every place is kept."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import gin
from gin import config_parser
from gin.config import ParserDelegate

import gin_configs
from tulu_jax.errors import ConfigError
from tulu_jax.files import real_path, user_path

MACRO = "macro"

_fields: dict[str, list[str]] = {}


def bindable(made: Callable[..., Any]) -> None:
    """Lets gin files bind the fields of a config, or the arguments of a function."""
    _fields[made.__name__] = list(inspect.signature(made).parameters)
    gin.external_configurable(made, made.__name__)


def config_folder() -> Path:
    """The folder of the recipes that come with the project."""
    return Path(next(iter(gin_configs.__path__)))


def first_line(error: BaseException) -> str:
    """The first line of an error's text: gin appends where it was called from."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@dataclasses.dataclass(frozen=True)
class Binding:
    """One setting, as a file or the command line gives it."""

    scope: str
    """Of a macro, its name."""
    kind: str
    """The config or function that has the field, or `MACRO`."""
    field: str
    value: Any
    macros: tuple[str, ...]
    """Macros that the value is made of."""
    line: str
    at: str
    own: bool
    """Whether it is the user's own, not of a recipe that comes with the project."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What is bound: scope, kind and field."""
        return self.scope, self.kind, self.field

    @property
    def name(self) -> str:
        """What is bound, as users write it: `LEARNING_RATE`, or `OptimizerConfig.b1`."""
        return self.scope if self.kind == MACRO else f"{self.kind}.{self.field}"


def read_bindings(files: Sequence[str], lines: Iterable[str]) -> Iterator[Binding]:
    """What gin files, looked for as given and then among the recipes, and later lines bind.

    Raises:
      ConfigError: a file that is not there, malformed gin, or a name that nothing has.
    """
    for file in files:
        yield from _read_file(file)
    for line in lines:
        yield from _read(line, "the command line", own=True)


def used_bindings() -> set[tuple[str, str, str]]:
    """The keys of all that gin has read so far in making configs, defaults included."""
    return {binding.key for binding in _read(gin.operative_config_str(), "", own=False)}


def _read_file(file: str) -> Iterator[Binding]:
    path = user_path(file, name="--gin_file")
    path = path if path.is_file() else config_folder() / file
    own = real_path(config_folder()) not in real_path(path).parents
    try:
        stream = open(path, encoding="utf-8-sig")  # noqa: SIM115
    except OSError as error:
        known = sorted((config_folder() / "runs").glob("*.gin"))
        raise ConfigError(
            "gin file cannot be read",
            got=file,
            expected=f"a file, or one of {', '.join(f'runs/{one.name}' for one in known)}",
        ) from error
    with stream:
        yield from _read(stream, str(path), own=own)


def _read(text: str | IO[str], where: str, *, own: bool) -> Iterator[Binding]:
    names = _Names()
    try:
        for statement in config_parser.ConfigParser(text, names):
            place = statement.location
            number = "" if isinstance(text, str) else f" line {place.line_num}"
            at = f"{where}{number}: {place.line_content.strip()}"
            if isinstance(statement, config_parser.IncludeStatement):
                yield from _read_file(statement.filename)
            elif isinstance(statement, config_parser.ImportStatement):
                gin.parse_config(statement.format())
            elif isinstance(statement, config_parser.BindingStatement):
                binding = _binding(statement, tuple(names.macros), at, own)
                _check_names(binding, names.unknown)
                yield binding
                names.macros.clear()
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError) as error:
        raise ConfigError("gin settings cannot be read", got=first_line(error)) from error


class _Names(ParserDelegate):
    """Makes gin's references, and keeps the names in the statement at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.macros: list[str] = []
        self.unknown: list[str] = []

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Any:
        """What `@NAME` or `@NAME()` stands for; None for a name that nothing has."""
        if _is_known(scoped_selector.rsplit("/", 1)[-1]):
            return super().configurable_reference(scoped_selector, evaluate)
        self.unknown.append(scoped_selector)
        return None

    def macro(self, name: str) -> Any:
        """What `%NAME` stands for."""
        self.macros.append(name)
        return super().macro(name)


def _is_known(name: str) -> bool:
    try:
        gin.get_configurable(name)
    except ValueError:
        return False
    return True


def _binding(
    statement: config_parser.BindingStatement, macros: tuple[str, ...], at: str, own: bool
) -> Binding:
    scope, kind, field = statement.scope, statement.selector.rsplit(".", 1)[-1], statement.arg_name
    if not field:
        scope, kind, field = f"{scope}/{kind}".lstrip("/"), MACRO, "value"
    line = statement.location.line_content.strip()
    return Binding(scope, kind, field, statement.value, macros, line, at, own)


def _check_names(binding: Binding, unknown: list[str]) -> None:
    """Refuses a config or field that nothing has, and gives the nearest names."""
    fields = _fields.get(binding.kind)
    if unknown or (fields is None and not _is_known(binding.kind)):
        got, names = unknown[0] if unknown else binding.kind, list(_fields)
        expected = difflib.get_close_matches(got, names, n=3) or names
    elif fields is not None and binding.field not in fields:
        got = binding.name
        expected = difflib.get_close_matches(binding.field, fields, n=3) or fields
    else:
        return
    raise ConfigError("unknown setting", got=got, at=binding.at, expected=" or ".join(expected))
