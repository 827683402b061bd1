"""`tulu data ...`: look at the data before paying for a run. One sub-command a file."""

from __future__ import annotations

import importlib
from typing import Any

COMMANDS = ("download", "prepare", "stats", "inspect", "check")
"""Modules of this package, in the order of `tulu data --help`; each has `add_parser(commands)`."""


def add_parser(subparsers: Any) -> None:
    """Adds the command `data` with its own commands."""
    parser = subparsers.add_parser("data", help="prepare datasets, show what is in them")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"tulu_jax.cli.data.{name}").add_parser(commands)
