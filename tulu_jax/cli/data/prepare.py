"""`tulu data prepare`: from raw files to tokenized stores."""

from __future__ import annotations

import argparse

from tulu_jax.cli.data.common import add_options, make_reader, prepare_options


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `tulu data prepare`."""
    prepare = commands.add_parser(
        "prepare",
        help="read, tokenize and store the tasks of a mixture",
        description="Reads each task's conversations (raw files are downloaded unless --raw_dir "
        "names them), encodes them, and writes one store a split. A store that exists already "
        "for exactly these files, tokenizer and options is kept.",
        epilog="example: tulu data prepare tulu_demo --tokenizer tasks/demo_tokenizer "
        "--max_length 128 --data_dir data",
    )
    add_options(prepare)
    prepare.add_argument("--rebuild", action="store_true", help="write stores that exist again")
    prepare.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Prepares the mixture and prints its table; returns the exit status."""
    from rich.console import Console

    from tulu_jax.data.prepare import prepare
    from tulu_jax.data.report import dataset_report, report_table

    options = prepare_options(args)
    stores = prepare(args.mixture, options, reader=make_reader(options), rebuild=args.rebuild)
    console = Console()
    console.print(report_table(dataset_report(stores, row_length=options.max_length)))
    for store in stores:
        console.print(f"{store.name} {store.meta['split']}: {store.path}", soft_wrap=True)
    return 0
