"""`tulu data inspect`: conversations as the model sees them, in the terminal or as a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.data.common import (
    MIXTURE_HELP,
    add_exclude_option,
    add_reading_options,
    reading_options,
)
from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.text import Text

    from tulu_jax.chat import Tokenizer
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.html import PackedRow
    from tulu_jax.data.looking import Filters, LookedAt, Shown
    from tulu_jax.data.specs import DatasetSpec
    from tulu_jax.data.store import Store

EPILOG = """\
examples:
  tulu data inspect tulu_demo --tokenizer tasks/demo_tokenizer
  tulu data inspect tulu_v1_human --tokenizer DIR --raw_dir RAW --html report.html
  tulu data inspect tulu_sharegpt --tokenizer DIR --raw_dir RAW --roles "(user assistant)+" \\
      --min_tokens 1000 --search "/def \\w+\\(/" """


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `tulu data inspect`."""
    parser = commands.add_parser(
        "inspect",
        help="show conversations as tokens, those that are trained in colour; or a report as HTML",
        description="Shows the conversations of a mixture as the model sees them, tokens that are "
        "trained in colour. Reads the raw files, or with --data_dir what `tulu data prepare` "
        "stored. In a terminal it pages; --n, or a pipe, prints. --html writes one page that "
        "needs no network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mixture", metavar="MIXTURE", help=MIXTURE_HELP)
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    parser.add_argument("--encoding", choices=("hf", "paper"), default="hf")
    parser.add_argument(
        "--max_length", type=int, default=2048, help="tokens after which one is cut (default 2048)"
    )
    add_reading_options(parser)
    add_exclude_option(parser)
    parser.add_argument("--data_dir", help="read the prepared stores in this folder instead")
    parser.add_argument("--split", default="train")
    parser.add_argument("--limit", type=int, help="read only so many conversations a dataset")
    _add_filters(parser)
    _add_output(parser)
    parser.set_defaults(func=run)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument("--dataset", help="only these tasks of the mixture, joined by commas")
    group.add_argument("--min_tokens", type=int, help="only conversations of at least so many")
    group.add_argument("--max_tokens", type=int, help="only conversations of at most so many")
    group.add_argument(
        "--roles",
        metavar="PATTERN",
        help='only conversations of these roles: "user assistant", or "system? (user assistant)+"',
    )
    group.add_argument(
        "--search", metavar="TEXT", help="only those with this text, or /regular expression/"
    )
    group.add_argument("--id", action="append", default=[], help="this conversation (repeatable)")
    group.add_argument("--only", choices=("truncated", "dropped"), help="only those")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--n", type=int, help="print so many and end (default 3 into a pipe)")
    group.add_argument(
        "--packed", action="store_true", help="show packed rows, in the order training sees them"
    )
    group.add_argument("--packing", choices=("best_fit", "padded"), default="best_fit")
    group.add_argument("--seed", type=int, default=42, help="the run's seed (default 42)")
    group.add_argument("--html", metavar="FILE", help="write a report that a browser opens")
    group.add_argument(
        "--html_examples", type=int, default=200, help="conversations in the report (default 200)"
    )
    group.add_argument(
        "--html_rows", type=int, default=20, help="packed rows in the report (default 20)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints conversations with their mask, or writes the report; returns the exit status."""
    from tulu_jax.console import plain_console

    for name in ("n", "limit", "html_examples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is too small", got=value, expected="1 or more")
    mixture = _Mixture(args)
    console = plain_console()
    if args.html:
        path = _write_html(args, mixture)
        console.print(f"{path}: open it with a browser", soft_wrap=True)
    elif args.packed:
        _print_rows(args, mixture, console)
    else:
        _print_examples(args, mixture, console)
    for line in mixture.faults_found():
        console.print(line, soft_wrap=True)
    return 0


class _Mixture:
    """The mixture that the command line names, and how it is read."""

    def __init__(self, args: argparse.Namespace) -> None:
        from tulu_jax.data.exclude import read_exclusion
        from tulu_jax.data.keys import PrepareOptions

        self.args = args
        self.exclusion = read_exclusion([str(path) for path in args.exclude])
        self.options = PrepareOptions(
            tokenizer=args.tokenizer,
            encoding=args.encoding,
            max_length=args.max_length,
            data_dir=args.data_dir or "",
            raw_dir=args.raw_dir,
            options=reading_options(args.option),
        )
        self.tokenizer = self.options.load_tokenizer()
        self.specs = self.options.specs(args.mixture)
        self.exclusion.check_tasks(spec.task_name for spec in self.specs)
        self.filters = self._filters()
        self.faults: dict[str, Faults] = {}

    def shown(self) -> Iterator[Shown]:
        """The conversations that pass the filters, read as they are asked for."""
        tasks = self.filters.tasks
        wanted = [spec for spec in self.specs if not tasks or spec.task_name in tasks]
        read = self._stored if self.options.data_dir else self._raw
        every = chain.from_iterable(map(read, wanted))
        out = {spec.task_name: self._excluded(spec) for spec in wanted}
        kept = (one for one in every if one.id not in out[one.task])
        return (one for one in kept if self.filters.match(one, self.tokenizer))

    def look(self) -> list[LookedAt]:
        """Every task, whole, with no more examples than the mixture takes of it."""
        from tulu_jax.data.mixtures import resolve

        parts = {part.task: part for part in resolve(self.args.mixture, seed=self.args.seed)}
        looked = []
        for spec in self.specs:
            part = parts[spec.task_name]
            task = self._look(spec).without(self._excluded(spec))
            if part.max_examples is not None:
                task = task.capped(part.max_examples, seed=part.seed or 0)
            looked.append(task)
        return looked

    def rows(self) -> Iterator[PackedRow]:
        """The packed rows in the order of training, those with a conversation that passes."""
        from tulu_jax.data.html import packed_rows

        args = self.args
        rows = packed_rows(
            self.look(), row_length=args.max_length, packing=args.packing, seed=args.seed
        )
        match = self.filters.match
        return (row for row in rows if any(match(s, self.tokenizer) for s in row.segments))

    def faults_found(self) -> Iterator[str]:
        """A line for each task of which bad records were skipped."""
        for task, faults in self.faults.items():
            if faults.skipped:
                first = faults.messages[0]
                yield f"{task}: {faults.skipped:,} bad records skipped, the first: {first}"

    def _look(self, spec: DatasetSpec) -> LookedAt:
        from tulu_jax.data.looking import look_at_all, look_at_store

        if self.options.data_dir:
            return look_at_store(self._store(spec), self.tokenizer)
        shown = list(self._raw(spec))
        faults = self.faults[spec.task_name]
        expected = spec.expected_examples.get(self.args.split)
        return look_at_all(
            spec.task_name,
            shown,
            expected=expected,
            skipped=faults.skipped,
            left_out=faults.left_out,
        )

    def _raw(self, spec: DatasetSpec) -> Iterator[Shown]:
        """A task's conversations from its raw files."""
        from tulu_jax.data.faults import Faults
        from tulu_jax.data.looking import encode_shown
        from tulu_jax.data.specs import locate_raw_dir

        split = self._split(spec)
        folder = locate_raw_dir(spec, self.args.raw_dir)
        if folder is None and not spec.embedded:
            raise DataError(
                f"dataset {spec.name} is read from files",
                do="name their folder with --raw_dir (`tulu data download` fetches them), or that "
                "of prepared stores with --data_dir",
            )
        faults = self.faults[spec.task_name] = Faults()
        conversations = spec.read(
            folder, split_name=split, tokenizer=self.tokenizer, faults=faults, **spec.options
        )
        return encode_shown(
            spec.task_name,
            islice(conversations, self.args.limit),
            self.tokenizer,
            max_length=self.args.max_length,
        )

    def _stored(self, spec: DatasetSpec) -> Iterator[Shown]:
        """A task's conversations from its prepared store."""
        from tulu_jax.data.looking import look_at_store

        looked = look_at_store(self._store(spec), self.tokenizer)
        return map(looked.example, range(len(looked))[: self.args.limit])

    def _store(self, spec: DatasetSpec) -> Store:
        from tulu_jax.data.keys import store_keys
        from tulu_jax.data.store import open_store

        key = store_keys(spec, self.options, tokenizer=self.tokenizer)[self._split(spec)]
        return open_store(key.folder(self.options.data_dir))

    def _excluded(self, spec: DatasetSpec) -> dict[str, str]:
        """Why ids of the task's split are left out."""
        return self.exclusion.reasons(spec.task_name, self.args.split)

    def _split(self, spec: DatasetSpec) -> str:
        split = self.args.split
        if split not in spec.splits:
            raise DataError(
                f"dataset {spec.name} has no such split",
                got=repr(split),
                expected=" or ".join(spec.splits),
            )
        return split

    def _filters(self) -> Filters:
        """The filters of the command line, its datasets found among the mixture's."""
        from tulu_jax.data.looking import Filters
        from tulu_jax.data.specs import unknown_name

        args = self.args
        known = {spec.task_name for spec in self.specs}
        tasks = []
        for name in (part.strip() for part in (args.dataset or "").split(",") if part.strip()):
            found = next((task for task in (name, f"tulu_{name}") if task in known), None)
            if found is None:
                raise unknown_name(f"dataset of {args.mixture}", name, known)
            tasks.append(found)
        return Filters(
            tasks=tuple(tasks),
            ids=tuple(args.id),
            min_tokens=args.min_tokens,
            max_tokens=args.max_tokens,
            roles=args.roles,
            search=args.search,
            only=args.only,
        )


def _print_examples(args: argparse.Namespace, mixture: _Mixture, console: Console) -> None:
    from tulu_jax.cli.data.show import render_shown
    from tulu_jax.data.pieces import PieceMaker

    maker = PieceMaker(mixture.tokenizer)
    colour = console.color_system is not None
    _present(args, mixture.shown(), lambda one: render_shown(one, maker, colour=colour), console)


def _print_rows(args: argparse.Namespace, mixture: _Mixture, console: Console) -> None:
    from tulu_jax.cli.data.show import render_row
    from tulu_jax.data.pieces import PieceMaker

    maker = PieceMaker(mixture.tokenizer)
    colour = console.color_system is not None
    _present(args, mixture.rows(), lambda row: render_row(row, maker, colour=colour), console)


def _present(args: argparse.Namespace, items: Iterator, show: Any, console: Console) -> None:
    """Pages through the items in a terminal; prints some otherwise."""
    from tulu_jax.cli.data.pager import Pager

    if args.n is None and console.is_terminal and sys.stdin.isatty():
        Pager(items, show, console=console).run()
        return
    some = [*islice(items, args.n or 3)]
    for item in some:
        text: Text = show(item)
        console.print(text, soft_wrap=True)
        console.print()
    if not some:
        console.print("no conversation passes these filters")


def _write_html(args: argparse.Namespace, mixture: _Mixture) -> Path:
    from tulu_jax.data.html import packed_rows, report_data, write_report
    from tulu_jax.data.looking import sample

    looked = mixture.look()
    tokenizer = mixture.tokenizer
    examples = sample(
        looked, args.html_examples, filters=mixture.filters, tokenizer=tokenizer, seed=args.seed
    )
    rows = packed_rows(looked, row_length=args.max_length, packing=args.packing, seed=args.seed)
    some = list(islice(rows, args.html_rows))
    return write_report(
        args.html,
        title=args.mixture,
        settings=_settings(args, tokenizer),
        data=report_data(looked, examples, some, tokenizer=tokenizer),
    )


def _settings(args: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, str]:
    """What stands under the report's title."""
    settings = {
        "tokenizer": f"{tokenizer.path.parent.name} ({tokenizer.vocab_size:,} tokens)",
        "encoding": args.encoding,
        "longest": f"{args.max_length:,} tokens",
        "packing": f"{args.packing}, seed {args.seed}",
        "split": args.split,
        "read from": "prepared stores" if args.data_dir else "raw files",
    }
    if args.limit:
        settings["read"] = f"the first {args.limit:,} of each dataset"
    names = ("dataset", "min_tokens", "max_tokens", "roles", "search", "only")
    chosen = [f"{name} {value}" for name in names if (value := getattr(args, name)) is not None]
    if chosen:
        settings["examples chosen by"] = ", ".join(chosen)
    return settings
