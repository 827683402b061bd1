"""What the commands of `tulu data` share: their options, and how conversations are read."""

from __future__ import annotations

import argparse
import ast
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.paths import path_argument
from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from tulu_jax.data.keys import PrepareOptions

MIXTURE_HELP = (
    "a mixture such as tulu_v1_human, a task such as tulu_demo, a path that ends in .jsonl, or "
    "several of these joined by commas"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what names a mixture and how it is prepared."""
    parser.add_argument("mixture", metavar="MIXTURE", help=MIXTURE_HELP)
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    parser.add_argument(
        "--encoding",
        choices=("hf", "paper"),
        default="hf",
        help="hf: as transformers tokenizes (default); paper: as the paper's code did",
    )
    parser.add_argument(
        "--max_length", type=int, default=2048, help="tokens after which one is cut (default 2048)"
    )
    parser.add_argument("--data_dir", default="data", help="where stores lie (default data)")
    add_reading_options(parser)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Adds where raw files lie and how they are read."""
    parser.add_argument("--raw_dir", help="folder with the raw files, or with one folder a dataset")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TASK.NAME=VALUE",
        help="a task's reading option, such as tulu_oasst1.rule=every; may be repeated",
    )


def add_exclude_option(parser: argparse.ArgumentParser) -> None:
    """Adds the files that `tulu data check --write_exclude` wrote."""
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="FILE",
        type=path_argument,
        help="leave out what this file names, as EXCLUDE=FILE does in training; may be repeated",
    )


def reading_options(arguments: list[str]) -> dict[str, dict[str, Any]]:
    """Options by task, from `TASK.NAME=VALUE` each; a VALUE that is no Python literal is text.

    Raises: ConfigError for an argument of another form.
    """
    options: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        left, equals, value = argument.partition("=")
        task, dot, name = left.rpartition(".")
        if not (equals and dot and task and name):
            raise ConfigError(
                "--option is not understood", got=repr(argument), expected="TASK.NAME=VALUE"
            )
        options.setdefault(task, {})[name] = _literal(value)
    return options


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def prepare_options(args: argparse.Namespace) -> PrepareOptions:
    """The options the command line gave."""
    from tulu_jax.data.keys import PrepareOptions

    return PrepareOptions(
        tokenizer=args.tokenizer,
        encoding=args.encoding,
        max_length=args.max_length,
        data_dir=args.data_dir,
        raw_dir=args.raw_dir,
        options=reading_options(args.option),
    )
