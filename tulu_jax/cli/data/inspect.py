"""`tulu data inspect`: conversations as the model sees them, in the terminal or as a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.data.common import (
    ENCODING,
    READING,
    add_flag,
    add_flags,
    refuse_to_overwrite,
    say_recognised,
)
from tulu_jax.cli.data.inspected import InspectedMixture
from tulu_jax.cli.flags import new_command, path_text, whole

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.text import Text

    from tulu_jax.chat import Tokenizer

EPILOG = """\
examples:
  tulu data inspect tulu_demo
  tulu data inspect my/chats.jsonl --tokenizer path/to/llama-7b
  tulu data inspect tulu_v1_human --tokenizer DIR --raw_dir RAW --html report.html
  tulu data inspect tulu_sharegpt --tokenizer DIR --raw_dir RAW --roles "(user assistant)+" \\
      --min_tokens 1000 --search "/def \\w+\\(/" """


def add_parser(commands: Any) -> None:
    """Adds `tulu data inspect`."""
    parser = new_command(
        commands,
        "inspect",
        run,
        help="show conversations as tokens, those that are trained in colour; or a report as HTML",
        description="Shows the conversations of a mixture as the model sees them, tokens that are "
        "trained in colour. Reads the raw files, or with --data_dir what `tulu data prepare` "
        "stored. In a terminal it pages; --n, or a pipe, prints. --html writes one page that "
        "needs no network.",
        epilog=EPILOG,
    )
    add_flags(parser, "mixture")
    add_flag(
        parser,
        "--tokenizer",
        help="folder of the tokenizer; without one, text is shown and no tokens",
    )
    add_flags(parser, *ENCODING, "--max_length", *READING, "--exclude")
    add_flag(
        parser, "--data_dir", default=None, help="read the prepared stores in this folder instead"
    )
    add_flags(parser, "--split")
    parser.add_argument("--limit", type=whole(1), help="read only so many conversations a dataset")
    _add_filters(parser)
    _add_output(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument("--dataset", help="only these tasks of the mixture, joined by commas")
    group.add_argument("--min_tokens", type=whole(0), help="only conversations of at least so many")
    group.add_argument("--max_tokens", type=whole(0), help="only conversations of at most so many")
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
    group.add_argument("--n", type=whole(1), help="print so many and end (default 3 into a pipe)")
    group.add_argument(
        "--packed", action="store_true", help="show packed rows, in the order training sees them"
    )
    add_flags(group, "--packing")
    group.add_argument(
        "--seed", type=whole(0, 2**63 - 1), default=42, help="the run's seed (default 42)"
    )
    group.add_argument(
        "--html", type=path_text, metavar="FILE", help="write a report that a browser opens"
    )
    group.add_argument(
        "--html_examples",
        type=whole(1),
        default=200,
        help="conversations in the report (default 200)",
    )
    group.add_argument(
        "--html_rows", type=whole(0), default=20, help="packed rows in the report (default 20)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints conversations with their mask, or writes the report; returns the exit status."""
    from tulu_jax.console import plain_console

    refuse_to_overwrite(args, "html")
    if args.tokenizer is None:
        from tulu_jax.cli.data.untokenized import check_flags

        check_flags(args)
    mixture = InspectedMixture(args)
    console = plain_console()
    if not args.data_dir:
        say_recognised(mixture.specs, args.raw_dir)
    if args.html:
        path = _write_html(args, mixture)
        console.print(f"{path}: open it with a browser", soft_wrap=True)
    elif args.packed:
        _print_rows(args, mixture, console)
    elif args.tokenizer is None:
        _print_conversations(args, mixture, console)
    else:
        _print_examples(args, mixture, console)
    for line in mixture.faults_found():
        console.print(line, soft_wrap=True)
    return 0


def _print_examples(args: argparse.Namespace, mixture: InspectedMixture, console: Console) -> None:
    from tulu_jax.cli.data.show import render_shown
    from tulu_jax.inspect.pieces import PieceMaker

    maker = PieceMaker(mixture.tokenizer)
    colour = console.color_system is not None
    show = partial(render_shown, maker=maker, colour=colour)
    _present(args, mixture, mixture.shown(), show, console)


def _print_conversations(
    args: argparse.Namespace, mixture: InspectedMixture, console: Console
) -> None:
    from tulu_jax.cli.data.untokenized import render_conversation
    from tulu_jax.console import print_line

    colour = console.color_system is not None
    shown = mixture.conversations()
    _present(args, mixture, shown, lambda one: render_conversation(*one, colour=colour), console)
    print_line(console, "no tokenizer is named, so this is text: --tokenizer DIR shows the tokens")


def _print_rows(args: argparse.Namespace, mixture: InspectedMixture, console: Console) -> None:
    from tulu_jax.cli.data.show import render_row
    from tulu_jax.inspect.pieces import PieceMaker

    maker = PieceMaker(mixture.tokenizer)
    colour = console.color_system is not None
    show = partial(render_row, maker=maker, colour=colour)
    _present(args, mixture, mixture.rows(), show, console)


def _present(
    args: argparse.Namespace,
    mixture: InspectedMixture,
    items: Iterator,
    show: Any,
    console: Console,
) -> None:
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
        mixture.check_any()
        console.print("no conversation passes these filters")


def _write_html(args: argparse.Namespace, mixture: InspectedMixture) -> Path:
    from tulu_jax.inspect.html import packed_rows, report_data, write_report
    from tulu_jax.inspect.looking import sample

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
        "chat template": tokenizer.template.name,
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
