"""What the values of `tulu data`'s flags may be: others are refused before anything is read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tulu_jax.cli.paths import path_text
from tulu_jax.cli.ranges import check_ranges
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import user_path

PATHS = ("tokenizer", "data_dir", "raw_dir", "eval_data", "json", "html")
"""Flags that name a file or folder, besides those whose command says so itself."""

OUTPUTS = ("json", "html", "write_exclude")
"""Flags that name a file to write."""

MANY = 1_000_000_000
WHOLE: dict[str, tuple[int, int]] = {
    "max_length": (1, 10_000_000),
    "batch_size": (1, MANY),
    "epochs": (1, MANY),
    "num_processes": (1, 4096),
    "jobs": (1, 4096),
    "retries": (0, 1_000_000),
    "n": (1, MANY),
    "limit": (1, MANY),
    "html_examples": (1, MANY),
    "html_rows": (0, MANY),
    "min_tokens": (0, MANY),
    "max_tokens": (0, MANY),
    "seed": (0, 2**63 - 1),
    "worst": (0, MANY),
    "ngram": (4, 1000),
}
"""Flags that take a whole number: the least and the largest."""

NUMBERS: dict[str, tuple[float, float]] = {
    "timeout": (0.001, 1e6),
    "threshold": (0.001, 1.0),
    "jaccard": (0.5, 1.0),
}
"""Flags that take a number: the least and the largest."""


def take_paths(parser: argparse.ArgumentParser) -> None:
    """Has a command's flags that name files or folders take paths as users write them."""
    for action in parser._actions:
        if action.dest in PATHS:
            action.type = path_text


def check_values(args: argparse.Namespace) -> None:
    """Passes when every number is one that its flag may have.

    Raises: ConfigError naming the flag.
    """
    check_ranges(args, WHOLE, NUMBERS)


def refuse_to_overwrite(args: argparse.Namespace) -> None:
    """Refuses to write where the command reads.

    Raises: DataError naming the file.
    """
    written = {flag: getattr(args, flag, None) for flag in OUTPUTS}
    if not any(written.values()):
        return
    mixture = getattr(args, "mixture", None) or ""
    named = [getattr(args, "tokenizer", None), *(getattr(args, "exclude", None) or [])]
    inputs = {_real(path) for path in [*named, mixture, *mixture.split(",")] if path}
    for flag, path in written.items():
        if path is not None and _real(path) in inputs:
            raise DataError(
                f"--{flag} would replace a file that is read", at=path, do="name another file"
            )


def _real(path: str | Path) -> str | None:
    """The path with links followed; None for what is none, which is not for us to say."""
    try:
        return os.path.realpath(user_path(str(path).strip()))
    except ConfigError:
        return None
