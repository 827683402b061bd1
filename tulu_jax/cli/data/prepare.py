"""`tulu data prepare`: from raw files to tokenized stores."""

from __future__ import annotations

import argparse
from typing import Any

from tulu_jax.cli.data.common import (
    ENCODING,
    READING,
    add_flag,
    add_flags,
    prepare_options,
    say_recognised,
)
from tulu_jax.cli.data.encoding import chosen_tokenizer


def add_parser(commands: Any) -> None:
    """Adds `tulu data prepare`."""
    prepare = commands.add_parser(
        "prepare",
        help="read, tokenize and store the tasks of a mixture",
        description="Reads each task's conversations (raw files are downloaded unless --raw_dir "
        "names them), encodes them, and writes one store a split. A store that exists already "
        "for exactly these files, tokenizer and options is kept. One that was stopped or killed "
        "goes on where it was.",
        epilog="example: tulu data prepare tulu_demo --tokenizer path/to/llama-7b "
        "--max_length 2048 --data_dir data",
    )
    add_flags(prepare, "mixture")
    add_flag(prepare, "--tokenizer", required=True)
    add_flags(prepare, *ENCODING, "--max_length", "--data_dir", *READING)
    add_flag(prepare, "--num_processes", help="processes that read and encode (default: all cores)")
    prepare.add_argument(
        "--strict", action="store_true", help="stop at the first bad record (default: skip and "
        "count, and stop when more than 1 %% are bad)"
    )  # fmt: skip
    prepare.add_argument("--rebuild", action="store_true", help="write stores that exist again")
    prepare.add_argument(
        "--verify", action="store_true", help="compare the checksums of stores that are kept"
    )
    prepare.add_argument(
        "--beam_runner", help="encode on Apache Beam: DirectRunner, DataflowRunner, FlinkRunner ..."
    )
    prepare.add_argument(
        "--beam_options",
        default="",
        metavar="NAME=VALUE,...",
        help="the runner's options, such as project=mine,region=europe-west4",
    )
    prepare.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Prepares the mixture and prints its table; returns the exit status."""
    import dataclasses

    from tulu_jax.console import plain_console
    from tulu_jax.data.prepare import prepare_each
    from tulu_jax.inspect.report import dataset_report, report_table
    from tulu_jax.processes import all_cores

    options = dataclasses.replace(
        prepare_options(args),
        num_processes=args.num_processes or all_cores(),
        strict=args.strict,
        beam_runner=args.beam_runner,
        beam_options=tuple(filter(None, args.beam_options.split(","))),
    )
    say_recognised(options.specs(args.mixture), options.raw_dir)
    if args.chat_template == "checkpoint":
        chosen_tokenizer(args)  # which says what it is
    every = prepare_each(args.mixture, options, rebuild=args.rebuild, verify=args.verify)
    console = plain_console()
    stores = [prepared.store for prepared in every]
    console.print(report_table(dataset_report(stores, row_length=options.max_length)))
    for prepared in every:
        for line in prepared.lines():
            console.print(line, soft_wrap=True)
    return 0
