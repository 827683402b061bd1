"""`tulu data ...`: look at the data before paying for a run. One sub-command a file."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from tulu_jax.cli.data.values import check_values, refuse_to_overwrite, take_paths

COMMANDS = ("download", "prepare", "stats", "inspect", "check")
"""Modules of this package, in the order of `tulu data --help`; each has `add_parser(commands)`."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command `data` with its own commands."""
    parser = subparsers.add_parser("data", help="prepare datasets, show what is in them")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"tulu_jax.cli.data.{name}").add_parser(commands)
        command = commands.choices[name]
        take_paths(command)
        command.set_defaults(func=_guarded(command.get_default("func")))


def _guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def guarded(args: argparse.Namespace) -> int:
        check_values(args)
        refuse_to_overwrite(args)
        return run(args)

    return guarded
