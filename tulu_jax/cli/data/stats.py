"""`tulu data stats`: a mixture in numbers."""

from __future__ import annotations

import argparse

from tulu_jax.cli.data.common import add_options, prepare_options


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `tulu data stats`."""
    stats = commands.add_parser(
        "stats",
        help="table of examples, tokens, loss share, lengths and packing of prepared tasks",
        description="Examples, tokens, share of tokens that carry loss, truncated and dropped "
        "rows, lengths, and how full packed rows are, by task and split.",
    )
    add_options(stats)
    stats.add_argument("--packing", choices=("best_fit", "padded"), default="best_fit")
    stats.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Prints the table of prepared stores; returns the exit status."""
    from rich.console import Console

    from tulu_jax.data.keys import mixture_specs, store_keys
    from tulu_jax.data.report import dataset_report, report_table
    from tulu_jax.data.store import open_store

    options = prepare_options(args)
    tokenizer = options.load_tokenizer()
    stores = [
        open_store(key.folder(options.data_dir))
        for spec in mixture_specs(args.mixture)
        for key in store_keys(spec, options, tokenizer=tokenizer).values()
    ]
    reports = dataset_report(stores, row_length=options.max_length, packing=args.packing)
    Console().print(report_table(reports))
    return 0
