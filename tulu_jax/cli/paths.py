"""Paths on the command line: every flag that names a file or folder takes `path_argument`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tulu_jax.errors import ConfigError
from tulu_jax.files import user_path


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
