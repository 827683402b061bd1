"""What the commands of `tulu data` share: their options, and how conversations are read."""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.data.encoding import tokenizer_options
from tulu_jax.cli.flags import (
    LENGTH_MOST,
    PROCESSES_MOST,
    model_text,
    path_argument,
    path_text,
    place_text,
    whole,
)
from tulu_jax.console import write_verbatim
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import real_path, user_path

if TYPE_CHECKING:
    from tulu_jax.data.keys import PrepareOptions
    from tulu_jax.data.specs import DatasetSpec

_NAME = re.compile(r"\.([A-Za-z_]\w*)=")

MIXTURE_HELP = (
    "a mixture such as tulu_v1_human, a task such as tulu_demo, the path of a file or folder of "
    "your own conversations (.jsonl, .json, .csv, .parquet ...), or several joined by commas"
)

FLAGS: dict[str, dict[str, Any]] = {
    "mixture": {"metavar": "MIXTURE", "help": MIXTURE_HELP},
    "--tokenizer": {"type": model_text, "help": "folder of the tokenizer"},
    "--encoding": {
        "choices": ("hf", "paper"),
        "default": "hf",
        "help": "hf: as transformers tokenizes (default); paper: as the paper's code did",
    },
    "--chat_template": {
        "default": "tulu",
        "metavar": "NAME",
        "help": "how conversations are written: tulu (default), llama2, llama3, mistral, chatml, "
        "zephyr, alpaca, or checkpoint: the tokenizer folder's own",
    },
    "--add_tokens": {
        "action": "append",
        "metavar": "TOKEN",
        "help": "a special token to add to the tokenizer (may be repeated), or `template`: those "
        "that the chat template needs",
    },
    "--max_length": {
        "type": whole(1, LENGTH_MOST),
        "default": 2048,
        "help": "tokens after which one is cut (default 2048)",
    },
    "--data_dir": {
        "type": place_text,
        "default": "data",
        "help": "where stores lie (default data)",
    },
    "--raw_dir": {
        "type": path_text,
        "help": "folder with the raw files, or with one folder a dataset",
    },
    "--option": {
        "action": "append",
        "default": [],
        "metavar": "TASK.NAME=VALUE",
        "help": "a task's reading option, such as tulu_oasst1.rule=every; may be repeated",
    },
    "--columns": {
        "metavar": "FIELD=COLUMN,...",
        "help": "which columns of your own file hold the conversation, where it is not "
        "recognised, such as prompt=question,completion=answer",
    },
    "--exclude": {
        "action": "append",
        "default": [],
        "metavar": "FILE",
        "type": path_argument,
        "help": "leave out what this file names, as EXCLUDE=FILE does in training; may be repeated",
    },
    "--split": {"default": "train", "help": "which split to read (default train)"},
    "--packing": {"choices": ("best_fit", "padded"), "default": "best_fit"},
    "--num_processes": {
        "type": whole(1, PROCESSES_MOST),
        "help": "default: as many as there are cores",
    },
    "--json": {"type": path_text, "help": "write everything to this file"},
}
"""Flags of several commands, as `add_argument` takes them."""

ENCODING = ("--encoding", "--chat_template", "--add_tokens")
"""How conversations become tokens."""

READING = ("--raw_dir", "--option", "--columns")
"""Where raw files lie and how they are read."""


def add_flag(parser: argparse._ActionsContainer, name: str, **others: Any) -> None:
    """Adds a flag of `FLAGS`; `others` stand in place of what it has there."""
    parser.add_argument(name, **{**FLAGS[name], **others})


def add_flags(parser: argparse._ActionsContainer, *names: str) -> None:
    """Adds flags of `FLAGS` as they are."""
    for name in names:
        add_flag(parser, name)


def reading_options(arguments: list[str]) -> dict[str, dict[str, Any]]:
    """Options by task, from `TASK.NAME=VALUE` each; a VALUE that is no Python literal is text.

    A TASK may be a path, which may have dots and equals signs of its own.

    Raises: ConfigError for an argument of another form.
    """
    options: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        found = [(argument[: m.start()], m) for m in _NAME.finditer(argument) if m.start()]
        if not found:
            raise ConfigError(
                "--option is not understood", got=repr(argument), expected="TASK.NAME=VALUE"
            )
        task, match = next((one for one in found if os.path.exists(one[0])), found[0])
        options.setdefault(task, {})[match[1]] = _literal(argument[match.end() :])
    return options


def chosen_options(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The reading options of the command line by task, `--columns` among them.

    Raises: ConfigError for `--columns` where there is not one file of the user's own.
    """
    options = reading_options(args.option)
    if args.columns is None:
        return options
    from tulu_jax.data.mixtures import get_mixture

    own = [spec.task_name for spec in get_mixture(args.mixture).specs() if spec.own]
    if len(own) != 1:
        raise ConfigError(
            "--columns is for one file of your own",
            got=f"{len(own)} of them in {args.mixture!r}",
            expected="one",
            do="name them with --option FILE.columns=FIELD=COLUMN,... for each",
        )
    options.setdefault(own[0], {})["columns"] = args.columns
    return options


def say_recognised(specs: Iterable[DatasetSpec], raw_dir: str | None) -> None:
    """Says on the error stream how a user's own files are read.

    Raises: DataError for a file that cannot be read; ConfigError for its options.
    """
    from tulu_jax.data.specs import how_read

    for spec in specs:
        for line in how_read(spec, raw_dir):
            write_verbatim(line, file=sys.stderr)


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
        **tokenizer_options(args),
        max_length=args.max_length,
        data_dir=args.data_dir,
        raw_dir=args.raw_dir,
        options=chosen_options(args),
    )


def text_paths(paths: Iterable[Path]) -> list[str]:
    """Paths as texts, which configs hold."""
    return [str(path) for path in paths]


def refuse_to_overwrite(args: argparse.Namespace, *flags: str) -> None:
    """Refuses flags that name a file to write where the command reads.

    Raises: DataError naming the file.
    """
    named = [args.tokenizer, *getattr(args, "exclude", ())]
    inputs = {_real(path) for path in [*named, args.mixture, *args.mixture.split(",")] if path}
    for flag in flags:
        path = getattr(args, flag)
        if path is not None and _real(path) in inputs:
            raise DataError(
                f"--{flag} would replace a file that is read", at=path, do="name another file"
            )


def _real(path: str | Path) -> Path | None:
    """The path with links followed; None for what is none, which is not for us to say."""
    try:
        return real_path(user_path(str(path).strip()))
    except ConfigError:
        return None
