"""`tulu report`: what models scored, as tables and as a page, the paper's numbers beside."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.flags import new_command, path_argument
from tulu_jax.errors import ConfigError
from tulu_jax.files import user_path

if TYPE_CHECKING:
    from eval.report.board import Board
    from eval.report.grid import Grid

DESCRIPTION = """\
Tables of what `tulu eval` found: models by benchmarks, each number with its standard error and how
many instances it is of, the paper's numbers and both of its averages beside. The set that is
statistically tied with the best is marked. --html writes one page that needs no network: the same
table, bars by skill and group, and the instances with prompts, outputs and scores."""

EPILOG = """\
examples:
  tulu report results/base results/tuned --base llama-7b
  tulu report results/* --format latex > table.tex
  tulu report results/base results/tuned --paper tulu-7b --html report.html
  tulu report study/tiny --html report.html      a whole study: its gin file, see tulu study
"""

WIDE = 10_000
"""Columns of what is no terminal: a file or pipe takes lines of any length."""

FORMATS = ("terminal", "markdown", "csv", "latex")


def add_parser(subparsers: Any) -> None:
    """Adds `tulu report` to the command line."""
    parser = new_command(
        subparsers,
        "report",
        run,
        help="tables and a page of evaluation results, with the paper's numbers beside",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "results",
        nargs="+",
        type=_results,
        metavar="RESULTS",
        help="--save_dir of a result or a suite, or a folder of suites; or the gin file of a "
        "study, alone, with --gin.NAME=VALUE as in `tulu study report`",
    )
    parser.add_argument("--base", metavar="NAME", help="show differences to this model")
    parser.add_argument(
        "--paper",
        action="append",
        metavar="ROW",
        help="a row of the paper (repeatable), all, none, or auto: those of the same model or "
        "dataset, else Tulu 7B (default auto)",
    )
    parser.add_argument(
        "--rows",
        choices=("auto", "models", "benchmarks"),
        default="auto",
        help="what the table's rows are (default: benchmarks while there are few models)",
    )
    parser.add_argument(
        "--datasets", action="store_true", help="name models by the dataset they were trained on"
    )
    parser.add_argument("--format", choices=FORMATS, default="terminal")
    parser.add_argument(
        "--html", type=path_argument, metavar="FILE", help="write a page that a browser opens"
    )
    parser.set_defaults(no_links=False)


def _results(text: str) -> str:
    path_argument(text)
    return text


def run(args: argparse.Namespace) -> int:
    """Prints the table, writes the page; the exit status."""
    if len(args.results) == 1 and _is_study(args.results[0]):
        return _report_study(args)
    if args.overrides:
        raise ConfigError("unknown arguments", got=" ".join(args.overrides),
                          do="see tulu report --help")  # fmt: skip
    from eval.harness.reading import refuse_own_file
    from eval.report.board import read_board
    from eval.report.grid import make_grid
    from tulu_jax.console import plain_console, print_line

    refuse_own_file(args.html, "--html")
    folders = [user_path(text) for text in args.results]
    board = read_board(folders, paper=args.paper or ["auto"], base=args.base)
    grid = make_grid(board, layout=args.rows, by_dataset=args.datasets)
    _print(args.format, board, grid)
    if args.html:
        from eval.report.page import write_html

        path = write_html(args.html, board)
        print_line(plain_console(stderr=True), f"{path}: open it with a browser")
    errors = plain_console(stderr=True)
    for line in board.warnings:
        print_line(errors, _clean(line), "yellow")
    return 0


def _is_study(text: str) -> bool:
    """Whether it is a gin file, or names one of ours; its folder may lie here by the same name."""
    from eval.study.workflow import SNAKEFILE
    from tulu_jax.cli.gin_files import config_folder
    from tulu_jax.cli.study_gin import ENDING

    if text.endswith(ENDING):
        return True
    path = user_path(text)
    known = not path.exists() or (path / SNAKEFILE).is_file()
    return known and (config_folder() / f"{text}{ENDING}").is_file()


def _report_study(args: argparse.Namespace) -> int:
    """As `tulu study report`.

    Raises: ConfigError for a flag that a study has nothing to do with; as `tulu study report`.
    """
    from tulu_jax.cli.study import read_table
    from tulu_jax.cli.study_report import report_study

    given = {"--base": args.base, "--paper": args.paper, "--datasets": args.datasets,
             "--rows": args.rows != "auto"}  # fmt: skip
    for flag in (flag for flag, value in given.items() if value):
        raise ConfigError(f"{flag} has no effect", got=f"a study, {args.results[0]}",
                          do="leave it out")  # fmt: skip
    return report_study(read_table(args.results[0], args.overrides), args)


def print_tables(folders: Sequence[Path]) -> None:
    """Prints the table of these results, with rows of the paper beside."""
    from eval.report.board import read_board
    from eval.report.grid import make_grid

    board = read_board(folders)
    _print("terminal", board, make_grid(board))


def _print(name: str, board: Board, grid: Grid) -> None:
    from eval.report import formats
    from tulu_jax.console import plain_console, print_line

    if name != "terminal":
        makers = {"markdown": formats.markdown, "latex": formats.latex}
        text = formats.as_csv(board) if name == "csv" else makers[name](grid)
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    console = plain_console()
    if not console.is_terminal:
        console.width = WIDE
    for table in formats.terminal(grid, console.width):
        console.print(table)
    for note in grid.notes:
        print_line(console, _clean(note))


def _clean(text: str) -> str:
    from tulu_jax.console import one_line

    return one_line(text.encode(errors="backslashreplace").decode(), 1000)
