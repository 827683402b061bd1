"""`tulu data check`: what a mixture holds that should not be trained on."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.data.common import (
    ENCODING,
    READING,
    add_flag,
    add_flags,
    chosen_options,
    refuse_to_overwrite,
    say_recognised,
)
from tulu_jax.cli.data.encoding import chosen_tokenizer, tokenizer_options
from tulu_jax.cli.flags import number, path_argument, path_text, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import PORTION, between

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from tulu_jax.data.specs import DatasetSpec
    from tulu_jax.inspect.check.options import CheckOptions
    from tulu_jax.inspect.check.result import CheckReport


def add_parser(commands: Any) -> None:
    """Adds `tulu data check`."""
    check = commands.add_parser(
        "check",
        help="look for evaluation items, duplicates, cut answers, secrets and outliers",
        description="Reads the raw files of a mixture's tasks (all their conversations, without "
        "limits of a run) and reports what should be known before training on them. Needs "
        "the extra `check`. The data are not changed; --write_exclude lists what to leave out of "
        "training. The exit status is 0 whatever is found, unless "
        "--fail_above says otherwise.",
        epilog="example: tulu data check tulu_v1_human --raw_dir raw --tokenizer llama "
        "--eval_data eval_data --html check.html --fail_above overlap=0.01",
    )
    add_flags(check, "mixture", *READING, "--split")
    check.add_argument(
        "--eval_data", type=path_text, help="folder with one folder a benchmark: mmlu, gsm, bbh ..."
    )
    add_flag(check, "--tokenizer", help="count what exceeds --max_length; ShareGPT needs it")
    add_flags(check, *ENCODING)
    check.set_defaults(encoding=None, chat_template=None)  # to tell what was given
    add_flag(check, "--max_length", default=None, help="in tokens (default 2048)")
    _add_thresholds(check)
    _add_exclude(check)
    add_flags(check, "--json", "--num_processes")
    check.add_argument("--html", type=path_text, help="write a page that shows everything")
    check.set_defaults(func=run)


def _add_exclude(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--write_exclude",
        metavar="FILE",
        type=path_argument,
        help="write the ids of conversations to leave out, with reasons; EXCLUDE=FILE trains "
        "without them",
    )
    check.add_argument(
        "--exclude_kinds",
        metavar="A,B",
        help="which: contaminated (evaluation items), duplicate (exact and near copies, all but "
        "the first), broken (empty or cut answers, open code blocks), or any finding of the "
        "report such as secrets (default contaminated,duplicate,broken)",
    )


def _add_thresholds(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--ngram", type=whole(4, 1000), help="overlap: words in a shared run (default 8)"
    )
    check.add_argument(
        "--threshold",
        type=number(PORTION),
        help="overlap: share of an evaluation item's words that one conversation's shared runs "
        "must cover (default 0.5)",
    )
    check.add_argument(
        "--jaccard",
        type=number(between(0.5, 1)),
        default=0.8,
        help="near duplicates: similarity of their five-word runs (default 0.8)",
    )
    check.add_argument(
        "--worst", type=whole(0), default=5, help="how many of each finding to show (default 5)"
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
    from tulu_jax.inspect.check.collect import limits_exceeded
    from tulu_jax.inspect.check.options import CheckOptions, parse_limit
    from tulu_jax.inspect.check.show import report_sections, report_tables

    refuse_to_overwrite(args, "json", "html", "write_exclude")
    _refuse_idle_flags(args)
    limits = [parse_limit(text) for text in args.fail_above]
    _refuse_unseen(args, "--fail_above", [kind for kind, _ in limits])
    kinds = _exclude_kinds(args)
    given = {
        "ngram": args.ngram,
        "overlap": args.threshold,
        "max_length": args.max_length,
    }
    options = CheckOptions(
        jaccard=args.jaccard,
        worst=args.worst,
        tokenizer=args.tokenizer,
        **tokenizer_options(args),
        exclude=kinds,
        **{name: value for name, value in given.items() if value is not None},
    )
    report, specs = _check(args, options)
    console = plain_console()
    for table in report_tables(report):
        console.print(table)
    if args.json:
        from tulu_jax.cli.data.reading import write_json

        write_json(args.json, report.as_json())
    if args.html:
        from tulu_jax.inspect.html import write_report

        settings = {"mixture": args.mixture, "split": args.split}
        title = f"Check of {args.mixture}"
        write_report(args.html, title=title, settings=settings, sections=report_sections(report))
    if args.write_exclude:
        _write_exclude(args, report, specs, console)
    exceeded = limits_exceeded(report, limits)
    for line in exceeded:
        print(line, file=sys.stderr)
    return 1 if exceeded else 0


def _exclude_kinds(args: argparse.Namespace) -> tuple[str, ...]:
    """The kinds of findings to exclude; none without --write_exclude.

    Raises: ConfigError for kinds that nothing would find or write; DataError for a file that must
        not be replaced.
    """
    from tulu_jax.data.exclude_file import refuse_to_replace
    from tulu_jax.inspect.check.marks import GROUPS, excluded_kinds

    if args.write_exclude is None:
        if args.exclude_kinds is not None:
            raise ConfigError(
                "--exclude_kinds without a file to write", do="name one with --write_exclude"
            )
        return ()
    refuse_to_replace(args.write_exclude)
    if args.exclude_kinds is None:
        kinds = excluded_kinds(",".join(GROUPS))
        return tuple(kind for kind in kinds if kind not in NEEDED or _named(args, NEEDED[kind]))
    kinds = excluded_kinds(args.exclude_kinds)
    _refuse_unseen(args, "--exclude_kinds", kinds)
    return kinds


NEEDED = {"overlap": "eval_data", "over_max_length": "tokenizer"}
"""Kinds of findings that are looked for only with a flag."""


def _named(args: argparse.Namespace, flag: str) -> bool:
    return getattr(args, flag) is not None


def _refuse_unseen(args: argparse.Namespace, flag: str, kinds: Iterable[str]) -> None:
    """Refuses kinds that are not looked for: of these nothing would ever be found."""
    for kind in kinds:
        if kind in NEEDED and not _named(args, NEEDED[kind]):
            raise ConfigError(
                f"{flag} names what is not looked for",
                got=kind,
                do=f"add --{NEEDED[kind]}, or leave it out",
            )


def _refuse_idle_flags(args: argparse.Namespace) -> None:
    """Refuses flags that would change nothing."""
    for flag, other in (("ngram", "eval_data"), ("threshold", "eval_data"),
                        ("max_length", "tokenizer"), ("encoding", "tokenizer"),
                        ("chat_template", "tokenizer"), ("add_tokens", "tokenizer")):  # fmt: skip
        if _named(args, flag) and not _named(args, other):
            raise ConfigError(
                f"--{flag} without --{other} changes nothing",
                got=repr(getattr(args, flag)),
                do=f"add --{other}, or leave it out",
            )


def _write_exclude(
    args: argparse.Namespace, report: CheckReport, specs: list[DatasetSpec], console: Console
) -> None:
    """Writes the exclude file and says what it holds."""
    from tulu_jax.data.exclude import excluded_text
    from tulu_jax.data.exclude_file import write_exclusion
    from tulu_jax.data.specs import locate_raw_dir, raw_fingerprint

    def facts(spec: DatasetSpec) -> dict[str, Any]:
        return {
            "conversations": report.datasets[spec.task_name].conversations,
            "excluded": report.excluded(spec.task_name),
            "raw_files": raw_fingerprint(spec, locate_raw_dir(spec, args.raw_dir)),
        }

    names = ("ngram", "overlap", "jaccard", "max_length", "exclude")
    header = {
        "mixture": args.mixture,
        "split": args.split,
        "options": {name: report.options[name] for name in names},
        "benchmarks": report.benchmarks,
        "kept": "of each group of duplicates the first that is not left out for another reason",
        "datasets": {spec.task_name: facts(spec) for spec in specs},
    }
    write_exclusion(args.write_exclude, header, (one._asdict() for one in report.listed))
    for spec in specs:
        text = excluded_text(report.excluded(spec.task_name))
        console.print(f"{spec.task_name}: {text}", soft_wrap=True)
    looked = "" if args.eval_data else "; evaluation items were not looked for (--eval_data)"
    setting = shlex.quote(f"--gin.EXCLUDE={args.write_exclude}")
    line = f"{args.write_exclude}: train without these with {setting}"
    console.print(line + looked, soft_wrap=True)


def _check(
    args: argparse.Namespace, options: CheckOptions
) -> tuple[CheckReport, list[DatasetSpec]]:
    """What was found, and in which datasets; they are read under a progress bar."""
    from tulu_jax.cli.data.benchmarks import read_eval_data
    from tulu_jax.cli.data.reading import raw_conversations, reading_progress
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.mixtures import mixture_specs
    from tulu_jax.inspect.check.run import check_mixture
    from tulu_jax.processes import all_cores

    tokenizer = chosen_tokenizer(args) if args.tokenizer else None
    items = read_eval_data(args.eval_data) if args.eval_data else []
    specs = mixture_specs(args.mixture, chosen_options(args))
    say_recognised(specs, args.raw_dir)
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
    return report, specs
