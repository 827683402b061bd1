"""How commands and their flags are made: what a path or number may be stands at its flag."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tulu_jax.errors import ConfigError
from tulu_jax.fields import Check, between
from tulu_jax.files import user_path
from tulu_jax.places import Place, is_address, user_place

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


def place_argument(text: str) -> Place:
    """`user_place`, for `add_argument(type=...)`: a path, or an address in a bucket.

    Raises:
        argparse.ArgumentTypeError: the text is neither.
    """
    try:
        return user_place(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def model_argument(text: str) -> Place:
    """The same of a model or tokenizer to read, which may be one of the Hub.

    Raises:
        argparse.ArgumentTypeError: the text is none of these.
    """
    try:
        return user_place(text, hub=True)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def model_or_none(text: str) -> Place | str:
    """`model_argument`, but `none` stays the word."""
    return text if text == "none" else model_argument(text)


def path_text(text: str) -> str:
    """The same as text: as it was typed, unless it has `~` or `..` in it.

    Raises:
        argparse.ArgumentTypeError: the text is no path.
    """
    path = path_argument(text)
    plain = not text.startswith("~") and ".." not in Path(text).parts
    return text if plain else str(path)


def place_text(text: str) -> str:
    """`place_argument` as text, as `path_text`.

    Raises:
        argparse.ArgumentTypeError: the text is no path or address.
    """
    place = place_argument(text)
    return str(place) if is_address(place) else path_text(text)


def model_text(text: str) -> str:
    """`model_argument` as text, as `path_text`.

    Raises:
        argparse.ArgumentTypeError: the text is no path or address.
    """
    place = model_argument(text)
    return str(place) if is_address(place) else path_text(text)


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
