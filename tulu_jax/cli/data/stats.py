"""`tulu data stats`: a mixture in numbers, and the paper's Table 1."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.data.common import (
    ENCODING,
    READING,
    add_flag,
    add_flags,
    chosen_options,
    prepare_options,
    refuse_to_overwrite,
    say_recognised,
    text_paths,
)
from tulu_jax.cli.data.encoding import chosen_tokenizer, tokenizer_options
from tulu_jax.cli.flags import whole
from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from rich.console import Console

    from tulu_jax.data.exclude import Exclusion
    from tulu_jax.data.specs import Conversation, DatasetSpec
    from tulu_jax.data.store import Store
    from tulu_jax.inspect.table1 import Table1Row

Stores = dict[str, dict[str, "Store | None"]]


def add_parser(commands: Any) -> None:
    """Adds `tulu data stats`."""
    stats = commands.add_parser(
        "stats",
        help="the paper's Table 1, tokens, loss share, dropped rows, shares and packing",
        description="The paper's Table 1 of a mixture, counted in its raw files, with the paper's "
        "numbers beside; from its prepared stores, tokens, the share of them that carries loss, "
        "cut and dropped rows, each dataset's part of an epoch, and how full packed rows are. "
        "What is not prepared, or has no raw files at hand, is left out with a note.",
        epilog="example: tulu data stats tulu_v1_human_gpt --dry_run",
    )
    add_flags(stats, "mixture")
    add_flag(stats, "--tokenizer", help="folder of the tokenizer; only --dry_run needs none")
    add_flags(stats, *ENCODING)
    add_flag(stats, "--max_length", help="tokens of a row (default 2048)")
    add_flags(stats, "--data_dir", *READING, "--exclude", "--packing")
    stats.add_argument("--schedule", choices=("concat", "rates"), default="concat")
    stats.add_argument(
        "--batch_size", type=whole(1), default=128, help="rows of a step (default 128)"
    )
    stats.add_argument(
        "--epochs", type=whole(1), default=2, help="for the steps in all (default 2)"
    )
    stats.add_argument(
        "--dry_run",
        action="store_true",
        help="the composition of the full-size mixture from known counts alone; reads no data",
    )
    add_flags(stats, "--json", "--num_processes")
    stats.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Prints the tables; returns the exit status."""
    from tulu_jax.console import plain_console

    refuse_to_overwrite(args, "json")
    console = plain_console()
    content = _dry_run(args, console) if args.dry_run else _stats(args, console)
    if args.json:
        from tulu_jax.cli.data.reading import write_json

        write_json(args.json, content)
    return 0


def _dry_run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The full-size mixture, from counts."""
    from tulu_jax.data.exclude import read_exclusion
    from tulu_jax.data.mixtures import mixture_specs, resolve
    from tulu_jax.inspect.dry_run import plan_mixture, plan_table

    exclusion = read_exclusion(text_paths(args.exclude))
    specs = {s.task_name: s for s in mixture_specs(args.mixture, chosen_options(args))}
    plan = plan_mixture(
        args.mixture,
        [(component, specs[component.task]) for component in resolve(args.mixture)],
        row_length=args.max_length,
        batch_size=args.batch_size,
        epochs=args.epochs,
        packing=args.packing,
        excluded={task: len(exclusion.reasons(task, "train")) for task in specs},
    )
    exclusion.check_tasks(specs)
    console.print(plan_table(plan))
    return plan.as_json()


def _stats(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Table 1 from raw files, the rest from stores."""
    from tulu_jax.cli.data.reading import find_stores
    from tulu_jax.data.exclude import read_exclusion
    from tulu_jax.inspect.report import dataset_report, report_table, table1
    from tulu_jax.inspect.table1 import PAPER

    if args.tokenizer is None:
        raise ConfigError(
            "no tokenizer is named", do="name its folder with --tokenizer, or use --dry_run"
        )
    options = prepare_options(args)
    tokenizer = chosen_tokenizer(args)
    specs = options.specs(args.mixture)
    say_recognised(specs, args.raw_dir)
    exclusion = read_exclusion(text_paths(args.exclude))
    exclusion.check_tasks(spec.task_name for spec in specs)
    stores = find_stores(specs, options, options.load_tokenizer())
    rows = _table1_rows(args, specs, exclusion)
    found = [s for splits in stores.values() for s in splits.values() if s is not None]
    if not found and not any(rows.values()):
        raise DataError(
            "no tokenized store, and no raw files",
            at=options.data_dir,
            do="run `tulu data prepare`, or name the raw files with --raw_dir",
        )
    names = {spec.task_name: spec.name for spec in specs}
    console.print(table1(rows, names, vocab_size=tokenizer.vocab_size))
    reports = dataset_report(
        found, row_length=args.max_length, packing=args.packing, exclusion=exclusion
    )
    if reports:
        console.print(report_table(reports))
    missing = [task for task, splits in stores.items() if splits["train"] is None]
    mixture = None if missing else _mixture(args, stores, console)
    if missing:
        console.print(
            f"not prepared, so without tokens (`tulu data prepare`): {', '.join(missing)}"
        )
    return {
        "mixture": args.mixture,
        "table1": {
            task: {"ours": _plain(row), "paper": _plain(PAPER.get(names[task]))}
            for task, row in rows.items()
        },
        "datasets": [report.as_json() for report in reports],
        "not_prepared": missing,
        "epoch": mixture,
    }


def _table1_rows(
    args: argparse.Namespace, specs: list[DatasetSpec], exclusion: Exclusion
) -> dict[str, Table1Row | None]:
    """The row of each task whose raw files are at hand, counted under progress bars."""
    from tulu_jax.cli.data.reading import raw_conversations, reading_progress
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.specs import locate_raw_dir
    from tulu_jax.inspect.table1 import count_lengths
    from tulu_jax.processes import all_cores

    tokenizer = prepare_options(args).load_tokenizer()
    at_hand = [s for s in specs if s.embedded or locate_raw_dir(s, args.raw_dir) is not None]
    rows: dict[str, Table1Row | None] = {spec.task_name: None for spec in specs}
    with reading_progress() as progress:
        bars, streams = {}, {}
        for spec in at_hand:
            total = spec.expected_examples.get("train")
            bars[spec.task_name] = progress.add_task(spec.task_name, total=total)
            every = raw_conversations(spec, args.raw_dir, tokenizer=tokenizer, faults=Faults())
            out = exclusion.reasons(spec.task_name, "train")
            streams[spec.task_name] = _without(every, out)
        processes = args.num_processes or all_cores()
        for name, lengths in count_lengths(
            streams, args.tokenizer, encoding=args.encoding, num_processes=processes
        ):
            progress.update(bars[name], completed=lengths.instances)
            rows[name] = lengths.row()
    return rows


def _without(every: Iterable[Conversation], ids: Container[str]) -> Iterator[Conversation]:
    return (one for one in every if one["id"] not in ids)


def _mixture(args: argparse.Namespace, stores: Stores, console: Console) -> dict[str, Any]:
    """What an epoch holds, with the mixture's own caps and rates."""
    from tulu_jax.data.config import DataConfig
    from tulu_jax.data.ensure import assemble
    from tulu_jax.data.mixtures import resolve
    from tulu_jax.inspect.report import mixture_report, mixture_table

    config = DataConfig(
        mixture=args.mixture,
        tokenizer=args.tokenizer,
        length=args.max_length,
        batch_size=args.batch_size,
        epochs=args.epochs,
        packing=args.packing,
        **tokenizer_options(args),
        data_dir=args.data_dir,
        raw_dir=args.raw_dir,
        schedule=args.schedule,
        options=chosen_options(args),
        exclude=text_paths(args.exclude),
    )
    prepared = {
        task: {split: store for split, store in splits.items() if store is not None}
        for task, splits in stores.items()
    }
    parts = resolve(args.mixture, seed=config.seed)
    data = assemble(config, parts, prepared, prepare_options(args).load_tokenizer())
    report = mixture_report(data.train, batch_size=args.batch_size, exclusion=data.exclusion)
    console.print(mixture_table(report))
    for note in data.notes:
        console.print(note, soft_wrap=True)
    return report.as_json()


def _plain(row: Table1Row | None) -> dict[str, float] | None:
    return None if row is None else dict(vars(row))
