"""`tulu data inspect`: conversations as the model sees them, in the terminal or as a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.data.common import MIXTURE_HELP, add_reading_options, reading_options
from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.text import Text

    from tulu_jax.chat import Tokenizer
    from tulu_jax.data.keys import PrepareOptions
    from tulu_jax.data.looking import Filters, LookedAt, Shown
    from tulu_jax.data.specs import DatasetSpec

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
    from rich.console import Console

    from tulu_jax.data.keys import PrepareOptions

    for name in ("n", "limit", "html_examples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is too small", got=value, expected="1 or more")
    options = PrepareOptions(
        tokenizer=args.tokenizer,
        encoding=args.encoding,
        max_length=args.max_length,
        data_dir=args.data_dir or "",
        raw_dir=args.raw_dir,
        options=reading_options(args.option),
    )
    tokenizer = options.load_tokenizer()
    specs = options.specs(args.mixture)
    filters = _filters(args, specs)
    console = Console()
    if args.html:
        path = _write_html(args, options, specs, filters, tokenizer)
        console.print(f"{path}: open it with a browser", soft_wrap=True, highlight=False)
    elif args.packed:
        _print_rows(args, _look(args, options, specs, tokenizer), filters, tokenizer, console)
    else:
        shown = (s for s in _shown(args, options, specs, tokenizer) if filters.match(s, tokenizer))
        _print_examples(args, shown, tokenizer, console)
    return 0


def _filters(args: argparse.Namespace, specs: list[DatasetSpec]) -> Filters:
    """The filters of the command line, its datasets found among the mixture's."""
    from tulu_jax.data.looking import Filters
    from tulu_jax.data.specs import unknown_name

    known = {spec.task_name for spec in specs}
    tasks = []
    for name in filter(None, (args.dataset or "").split(",")):
        found = next((t for t in (name.strip(), f"tulu_{name.strip()}") if t in known), None)
        if found is None:
            raise unknown_name(f"dataset of {args.mixture}", name.strip(), known)
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


def _read_raw(
    args: argparse.Namespace, spec: DatasetSpec, tokenizer: Tokenizer, faults: Any = None
) -> Iterator[Shown]:
    """A task's conversations from its raw files."""
    from tasks import read_conversations
    from tulu_jax.data.looking import encode_shown
    from tulu_jax.data.specs import locate_raw_dir

    conversations = read_conversations(
        spec.task_name,
        locate_raw_dir(spec, args.raw_dir),
        tokenizer=tokenizer,
        split_name=args.split,
        faults=faults,
        **spec.options,
    )
    conversations = islice(conversations, args.limit)
    return encode_shown(spec.task_name, conversations, tokenizer, max_length=args.max_length)


def _look(
    args: argparse.Namespace,
    options: PrepareOptions,
    specs: list[DatasetSpec],
    tokenizer: Tokenizer,
) -> list[LookedAt]:
    """Every task of the mixture, whole."""
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.looking import look_at_all, look_at_store

    if options.data_dir:
        return [look_at_store(_store(args, options, s, tokenizer), tokenizer) for s in specs]
    looked = []
    for spec in specs:
        faults = Faults()
        shown = list(_read_raw(args, spec, tokenizer, faults))
        expected = spec.expected_examples.get(args.split)
        looked.append(look_at_all(spec.task_name, shown, expected=expected, skipped=faults.skipped))
    return looked


def _shown(
    args: argparse.Namespace,
    options: PrepareOptions,
    specs: list[DatasetSpec],
    tokenizer: Tokenizer,
) -> Iterator[Shown]:
    """The mixture's conversations one by one, read as they are asked for."""
    from tulu_jax.data.faults import Faults
    from tulu_jax.data.looking import look_at_store

    wanted = [s for s in specs if not args.dataset or s.task_name in _filters(args, specs).tasks]
    if not options.data_dir:
        return chain.from_iterable(_read_raw(args, s, tokenizer, Faults()) for s in wanted)

    def stored(spec: DatasetSpec) -> Iterator[Shown]:
        looked = look_at_store(_store(args, options, spec, tokenizer), tokenizer)
        return map(looked.example, range(len(looked))[: args.limit])

    return chain.from_iterable(map(stored, wanted))


def _store(
    args: argparse.Namespace, options: PrepareOptions, spec: DatasetSpec, tokenizer: Tokenizer
) -> Any:
    from tulu_jax.data.keys import store_keys
    from tulu_jax.data.store import open_store

    keys = store_keys(spec, options, tokenizer=tokenizer)
    if args.split not in keys:
        known = " or ".join(keys)
        at = f"dataset {spec.name}"
        raise DataError("dataset has no such split", got=repr(args.split), at=at, expected=known)
    return open_store(keys[args.split].folder(options.data_dir))


def _print_examples(
    args: argparse.Namespace, shown: Iterator[Shown], tokenizer: Tokenizer, console: Console
) -> None:
    from tulu_jax.cli.data.show import render_shown
    from tulu_jax.data.pieces import PieceMaker

    maker = PieceMaker(tokenizer)
    colour = console.color_system is not None
    _present(args, shown, lambda one: render_shown(one, maker, colour=colour), console)


def _print_rows(
    args: argparse.Namespace,
    looked: list[LookedAt],
    filters: Filters,
    tokenizer: Tokenizer,
    console: Console,
) -> None:
    from tulu_jax.cli.data.show import render_row
    from tulu_jax.data.html import packed_rows
    from tulu_jax.data.pieces import PieceMaker

    maker = PieceMaker(tokenizer)
    colour = console.color_system is not None
    rows = packed_rows(looked, row_length=args.max_length, packing=args.packing, seed=args.seed)
    passing = (r for r in rows if any(filters.match(s, tokenizer) for s in r.segments))
    _present(args, passing, lambda row: render_row(row, maker, colour=colour), console)


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


def _write_html(
    args: argparse.Namespace,
    options: PrepareOptions,
    specs: list[DatasetSpec],
    filters: Filters,
    tokenizer: Tokenizer,
) -> Path:
    from tulu_jax.data.html import packed_rows, report_data, write_report
    from tulu_jax.data.looking import sample

    looked = _look(args, options, specs, tokenizer)
    examples = sample(
        looked, args.html_examples, filters=filters, tokenizer=tokenizer, seed=args.seed
    )
    rows = islice(
        packed_rows(looked, row_length=args.max_length, packing=args.packing, seed=args.seed),
        args.html_rows,
    )
    data = report_data(looked, examples, list(rows), tokenizer=tokenizer)
    return write_report(
        args.html, title=args.mixture, settings=_settings(args, options, tokenizer, looked),
        data=data,
    )  # fmt: skip


def _settings(
    args: argparse.Namespace, options: PrepareOptions, tokenizer: Tokenizer, looked: list[LookedAt]
) -> dict[str, str]:
    """What stands under the report's title."""
    folder = tokenizer.path.parent
    settings = {
        "tokenizer": f"{folder.name} ({tokenizer.vocab_size:,} tokens)",
        "encoding": options.encoding,
        "longest": f"{options.max_length:,} tokens",
        "packing": f"{args.packing}, seed {args.seed}",
        "split": args.split,
        "read from": "prepared stores" if options.data_dir else "raw files",
    }
    if args.limit:
        settings["read"] = f"the first {args.limit:,} of each dataset"
    chosen = {n: getattr(args, n) for n in ("dataset", "roles", "search", "only", "min_tokens",
              "max_tokens") if getattr(args, n) is not None}  # fmt: skip
    if chosen:
        settings["examples chosen by"] = ", ".join(f"{n} {v}" for n, v in chosen.items())
    return settings
