"""`tulu data prepare`: from raw files to tokenized stores."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tulu_jax.cli.data.common import add_options, prepare_options, say_recognised
from tulu_jax.cli.data.encoding import chosen_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tulu_jax.data.prepare import Prepared


def add_parser(commands: argparse._SubParsersAction) -> None:
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
    add_options(prepare)
    prepare.add_argument(
        "--num_processes", type=int, help="processes that read and encode (default: all cores)"
    )
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
    from tulu_jax.data.workers import all_cores
    from tulu_jax.inspect.report import dataset_report, report_table

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
    for line in summary(every):
        console.print(line, soft_wrap=True)
    return 0


def summary(every: list[Prepared]) -> Iterator[str]:
    """A line for each store, and lines for what was skipped, left out or not used of its files."""
    from tulu_jax.data.faults import kinds_text, unused_lines

    for prepared in every:
        store = prepared.store
        what = "made" if prepared.made else "kept"
        if prepared.parts_found:
            what += f", going on after {prepared.parts_found} of {prepared.parts} parts"
        name = f"{store.name} {store.meta['split']}"
        yield f"{name}: {store.path} ({what})"
        counts = store.meta["counts"]
        if counts.get("skipped"):
            kinds = counts.get("kinds", {})
            which = f" ({kinds_text(kinds)})" if len(kinds) > 1 else ""
            yield f"{name}: {counts['skipped']:,} bad records skipped{which}, the first of them:"
            yield from (f"    {message}" for message in counts["messages"][:3])
        for reason, count in counts.get("left_out", {}).items():
            yield f"{name}: {count:,} left out, {reason}"
        for line in unused_lines(counts):
            yield f"{name}: {line}"
