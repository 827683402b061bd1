"""`tulu study`: datasets x base models x evaluations by one command, and its tables."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import PROCESSES_MOST, new_command, path_argument, whole
from tulu_jax.cli.study_losses import add_arguments as add_loss_arguments

if TYPE_CHECKING:
    from rich.console import Console

    from eval.study.cells import Table

DESCRIPTION = """\
A study is one gin file: base models, datasets, evaluations, and which are put together. It becomes
a table of cells (prepare, train, export, evaluate, losses, report), each step in a folder whose
name is the hash of what it depends on: a changed recipe runs only what depends on it.

  tulu study plan study/paper.gin        cells, steps, memory, hours; nothing is run
  tulu study run study/paper.gin         run what is not done; again after a kill or a failure
  tulu study status study/paper.gin      how far it is, and why steps failed
  tulu study report study/paper.gin      the paper's tables, with its numbers beside, and findings
"""

EPILOG = "Settings are changed as in `tulu train`: --gin.STUDY_DIR=DIR. See docs/study.md."


def add_parser(subparsers: Any) -> None:
    """Adds `tulu study` to the command line."""
    parser = subparsers.add_parser(
        "study",
        help="a whole study: many datasets, base models and evaluations",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="study_command", metavar="COMMAND", required=True)
    plan = _add(commands, "plan", _plan, "cells, what is there, steps, memory and chip-hours")
    plan.add_argument("--json", type=path_argument, metavar="FILE", help="also write it here")
    plan.add_argument("--commands", action="store_true", help="print each step's command instead")
    go = _add(commands, "run", _run, "run what is not done, by Snakemake (extra study)")
    go.add_argument(
        "--jobs", type=whole(1, PROCESSES_MOST), default=1, metavar="N",
        help="steps at once (default 1: a training takes every device)",
    )  # fmt: skip
    go.add_argument(
        "--snakemake", type=path_argument, metavar="FILE",
        help="its program (default: beside Python's, or in PATH)",
    )  # fmt: skip
    go.add_argument(
        "--executor", metavar="NAME",
        help="hand steps to a cluster by a plugin of Snakemake's: slurm (default: run them here)",
    )  # fmt: skip
    shown = _add(commands, "report", _report, "the study's tables and findings, of what is done")
    shown.add_argument(
        "--format", choices=("terminal", "markdown", "latex", "csv"), default="terminal"
    )
    shown.add_argument(
        "--html", type=path_argument, metavar="FILE", help="write a page that a browser opens"
    )
    shown.add_argument(
        "--no_links", action="store_true", help="link no number to its predictions: to pass it on"
    )
    losses = new_command(
        commands, "losses", _losses, allow_abbrev=False,
        help="a model's loss on held-out conversations (a step of studies)",
        description="A model's loss on the conversations of each dataset that training did not see."
    )  # fmt: skip
    add_loss_arguments(losses)
    status = _add(commands, "status", _status, "how far each cell is, and why steps failed")
    status.add_argument("--json", type=path_argument, metavar="FILE", help="also write it here")


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = new_command(
        commands, name, run, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EPILOG,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("study", metavar="STUDY", help="gin file, as a path or within gin_configs/")
    return parser


def _table(args: argparse.Namespace) -> Table:
    return read_table(args.study, args.overrides)


def read_table(file: str, overrides: list[str]) -> Table:
    """The study of a gin file; of one in a bucket, what is done there is here afterwards.

    Raises: ConfigError for the file or an override; StorageError.
    """
    from eval.study.far import fetch
    from tulu_jax.cli.study_gin import load_table

    table = load_table(file, overrides)
    fetch(table)
    return table


def _plan(args: argparse.Namespace) -> int:
    """Prints what the study takes; the exit status."""
    from tulu_jax.cli.study_plan import as_json, plan_study, print_study
    from tulu_jax.console import plain_console, write_verbatim
    from tulu_jax.files import write_json

    table = _table(args)
    if args.commands:
        for line in commands_of(table):
            write_verbatim(line)
        return 0
    plan = plan_study(table)
    print_study(plan, console())
    if args.json:
        write_json(args.json, as_json(plan))
        plain_console(stderr=True).print(f"{args.json}: the plan", soft_wrap=True)
    return 0


def _run(args: argparse.Namespace) -> int:
    from tulu_jax.cli.study_run import run_study

    return run_study(_table(args), args, console())


def _report(args: argparse.Namespace) -> int:
    from tulu_jax.cli.study_report import report_study

    return report_study(_table(args), args)


def _losses(args: argparse.Namespace) -> int:
    from tulu_jax.cli.study_losses import run

    return run(args)


def _status(args: argparse.Namespace) -> int:
    from tulu_jax.cli.study_run import print_status, status_json
    from tulu_jax.files import write_json

    table = _table(args)
    print_status(table, console())
    if args.json:
        write_json(args.json, status_json(table))
    return 0


def commands_of(table: Table) -> list[str]:
    """Each step's folder and command, as a shell takes it in the study's folder."""
    import shlex

    lines = []
    for step in table.steps:
        lines += [f"# {step.folder}: {step.name}", f"tulu {shlex.join(step.argv)}"]
    return lines


def console() -> Console:
    """The terminal; a file or pipe takes lines of any length."""
    from tulu_jax.cli.report import WIDE
    from tulu_jax.console import plain_console

    found = plain_console()
    if not found.is_terminal:
        found.width = WIDE
    return found
