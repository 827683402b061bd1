"""`tulu data check`: what a mixture holds that should not be trained on."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tulu_jax.cli.data.common import MIXTURE_HELP, add_reading_options

if TYPE_CHECKING:
    from tulu_jax.data.check.options import CheckOptions
    from tulu_jax.data.check.result import CheckReport


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `tulu data check`."""
    check = commands.add_parser(
        "check",
        help="look for evaluation items, duplicates, cut answers, secrets and outliers",
        description="Reads the raw files of a mixture's tasks (all their conversations, without "
        "limits of a run) and reports what should be known before training on them. Needs "
        "the extra `check`. Nothing is changed. The exit status is 0 whatever is found, unless "
        "--fail_above says otherwise.",
        epilog="example: tulu data check tulu_v1_human --raw_dir raw --tokenizer llama "
        "--eval_data eval_data --html check.html --fail_above overlap=0.01",
    )
    check.add_argument("mixture", metavar="MIXTURE", help=MIXTURE_HELP)
    add_reading_options(check)
    check.add_argument("--split", default="train", help="which split to read (default train)")
    check.add_argument("--eval_data", help="folder with one folder a benchmark: mmlu, gsm, bbh ...")
    check.add_argument("--tokenizer", help="count what exceeds --max_length; ShareGPT needs it")
    check.add_argument("--encoding", choices=("hf", "paper"), default="hf")
    check.add_argument("--max_length", type=int, default=2048, help="in tokens (default 2048)")
    _add_thresholds(check)
    check.add_argument("--json", help="write everything to this file")
    check.add_argument("--html", help="write a page that shows everything")
    check.add_argument("--num_processes", type=int, help="default: as many as there are cores")
    check.set_defaults(func=run)


def _add_thresholds(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--ngram", type=int, default=8, help="overlap: words in a shared run (default 8)"
    )
    check.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="overlap: share of an evaluation item's words that one conversation's shared runs "
        "must cover (default 0.5)",
    )
    check.add_argument(
        "--jaccard",
        type=float,
        default=0.8,
        help="near duplicates: similarity of their five-word runs (default 0.8)",
    )
    check.add_argument(
        "--worst", type=int, default=5, help="how many of each finding to show (default 5)"
    )
    check.add_argument(
        "--fail_above",
        action="append",
        default=[],
        metavar="KIND=SHARE",
        help="exit with status 1 when a share is above this, such as overlap=0.01; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Checks the mixture and reports; returns 1 when a limit is exceeded, else 0."""
    from tulu_jax.console import plain_console
    from tulu_jax.data.check.collect import limits_exceeded
    from tulu_jax.data.check.options import CheckOptions, parse_limit
    from tulu_jax.data.check.show import report_sections, report_tables

    limits = [parse_limit(text) for text in args.fail_above]
    options = CheckOptions(
        ngram=args.ngram,
        overlap=args.threshold,
        jaccard=args.jaccard,
        worst=args.worst,
        tokenizer=args.tokenizer,
        encoding=args.encoding,
        max_length=args.max_length,
    )
    report = _check(args, options)
    console = plain_console()
    for table in report_tables(report):
        console.print(table)
    if args.json:
        from tulu_jax.cli.data.reading import write_json

        write_json(args.json, report.as_json())
    if args.html:
        from tulu_jax.data.html import write_report

        settings = {"mixture": args.mixture, "split": args.split}
        title = f"Check of {args.mixture}"
        write_report(args.html, title=title, settings=settings, sections=report_sections(report))
    exceeded = limits_exceeded(report, limits)
    for line in exceeded:
        print(line, file=sys.stderr)
    return 1 if exceeded else 0


def _check(args: argparse.Namespace, options: CheckOptions) -> CheckReport:
    """Reads the mixture under a progress bar."""
    from tulu_jax.chat import load_tokenizer
    from tulu_jax.cli.data.common import reading_options
    from tulu_jax.cli.data.reading import raw_conversations, reading_progress
    from tulu_jax.data.check.benchmarks import read_benchmarks
    from tulu_jax.data.check.run import check_mixture
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.mixtures import mixture_specs
    from tulu_jax.data.workers import all_cores

    tokenizer = load_tokenizer(args.tokenizer, args.encoding) if args.tokenizer else None
    items = read_benchmarks(args.eval_data) if args.eval_data else []
    specs = mixture_specs(args.mixture, reading_options(args.option))
    faults = {spec.task_name: Faults() for spec in specs}
    datasets = {
        spec.task_name: raw_conversations(
            spec,
            args.raw_dir,
            tokenizer=tokenizer,
            faults=faults[spec.task_name],
            split=args.split,
        )
        for spec in specs
    }
    with reading_progress() as progress:
        bars = {
            spec.task_name: progress.add_task(
                spec.task_name, total=spec.expected_examples.get(args.split), start=False
            )
            for spec in specs
        }

        def show(name: str, done: int) -> None:
            progress.start_task(bars[name])
            progress.update(bars[name], completed=done)

        report = check_mixture(
            args.mixture,
            datasets,
            options=options,
            items=items,
            num_processes=args.num_processes or all_cores(),
            progress=show,
        )
    report.skipped = {name: one.skipped for name, one in faults.items() if one.skipped}
    return report
