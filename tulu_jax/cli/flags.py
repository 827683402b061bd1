"""How commands and their flags are made: what a path or number may be stands at its flag."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tulu_jax.errors import ConfigError
from tulu_jax.fields import Check, between
from tulu_jax.files import user_path

Number = TypeVar("Number", int, float)

MANY = 1_000_000_000
LENGTH_MOST, PROCESSES_MOST = 10_000_000, 4096


def new_command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], int], **texts: Any
) -> argparse.ArgumentParser:
    """The parser of a sub-command; `texts` are shown as they are written."""
    style = texts.pop("formatter_class", argparse.RawDescriptionHelpFormatter)
    parser = subparsers.add_parser(name, formatter_class=style, **texts)
    parser.set_defaults(func=run)
    return parser


def path_argument(text: str) -> Path:
    """`user_path`, for `add_argument(type=...)`.

    Raises:
        argparse.ArgumentTypeError: the text is no path.
    """
    try:
        return user_path(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def path_or_none(text: str) -> Path | str:
    """The same, but `none` stays the word."""
    return text if text == "none" else path_argument(text)


def path_text(text: str) -> str:
    """The same as text: as it was typed, unless it has `~` or `..` in it.

    Raises:
        argparse.ArgumentTypeError: the text is no path.
    """
    path = path_argument(text)
    plain = not text.startswith("~") and ".." not in Path(text).parts
    return text if plain else str(path)


def whole(low: int, high: int = MANY) -> Callable[[str], int]:
    """A whole number from `low` to `high`, for `add_argument(type=...)`."""
    return _number(int, between(low, high, "a whole number"))


def number(check: Check) -> Callable[[str], float]:
    """A number that is as `check` says."""
    return _number(float, check)


def _number(kind: Callable[[str], Number], check: Check) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        value = kind(text)
        if not check.ok(value):  # nor NaN
            raise argparse.ArgumentTypeError(
                f"{check.wrong} - got {text} - expected {check.expected}"
            )
        return value

    read.__name__ = kind.__name__  # what argparse calls a text that is no number
    return read
