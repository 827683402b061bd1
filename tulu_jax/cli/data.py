"""`tulu data prepare | stats | inspect`: look at the data before paying for a run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tulu_jax.data.keys import PrepareOptions

_TASK_HELP = "a task such as tulu_demo, or several joined by commas"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command `data` with its own commands."""
    parser = subparsers.add_parser("data", help="prepare datasets, show what is in them")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_stats(commands)
    _add_inspect(commands)


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    prepare = commands.add_parser(
        "prepare",
        help="read, tokenize and store the tasks of a mixture",
        description="Reads each task's conversations (raw files are downloaded unless --raw_dir "
        "names them), encodes them, and writes one store a split. A store that exists already "
        "for exactly these files, tokenizer and options is kept.",
        epilog="example: tulu data prepare tulu_demo --tokenizer tasks/demo_tokenizer "
        "--max_length 128 --data_dir data",
    )
    _add_options(prepare)
    prepare.add_argument("--rebuild", action="store_true", help="write stores that exist again")
    prepare.set_defaults(func=run_prepare)


def _add_stats(commands: argparse._SubParsersAction) -> None:
    stats = commands.add_parser(
        "stats",
        help="table of examples, tokens, loss share, lengths and packing of prepared tasks",
        description="Examples, tokens, share of tokens that carry loss, truncated and dropped "
        "rows, lengths, and how full packed rows are, by task and split.",
    )
    _add_options(stats)
    stats.add_argument("--packing", choices=("best_fit", "padded"), default="best_fit")
    stats.set_defaults(func=run_stats)


def _add_inspect(commands: argparse._SubParsersAction) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="show conversations as tokens, those that carry loss in colour",
        description="The first conversations of a task as the model sees them: tokens that "
        "carry loss in colour. Reads the raw files; nothing has to be prepared.",
    )
    inspect.add_argument("task", help="a task such as tulu_demo")
    inspect.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    inspect.add_argument("--encoding", choices=("hf", "paper"), default="hf")
    inspect.add_argument("--max_length", type=int, help="cut conversations after so many tokens")
    inspect.add_argument("--raw_dir", help="folder with the raw files, or with one folder a task")
    inspect.add_argument("--split", default="train")
    inspect.add_argument("--n", type=int, default=3, help="how many conversations (default 3)")
    inspect.set_defaults(func=run_inspect)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mixture", metavar="MIXTURE", help=_TASK_HELP)
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    parser.add_argument(
        "--encoding",
        choices=("hf", "paper"),
        default="hf",
        help="hf: as transformers tokenizes (default); paper: as the paper's code did",
    )
    parser.add_argument(
        "--max_length", type=int, default=2048, help="tokens after which one is cut (default 2048)"
    )
    parser.add_argument("--data_dir", default="data", help="where stores lie (default data)")
    parser.add_argument("--raw_dir", help="folder with the raw files, or with one folder a task")
    parser.add_argument(
        "--num_processes", type=int, default=1, help="processes that encode (default 1)"
    )


def run_prepare(args: argparse.Namespace) -> int:
    """Prepares the mixture and prints its table; returns the exit status."""
    from rich.console import Console

    from tulu_jax.data.prepare import prepare
    from tulu_jax.data.report import dataset_report, report_table

    options = _options(args)
    stores = prepare(args.mixture, options, reader=_reader(options), rebuild=args.rebuild)
    console = Console()
    console.print(report_table(dataset_report(stores, row_length=options.max_length)))
    for store in stores:
        console.print(f"{store.name} {store.meta['split']}: {store.path}", soft_wrap=True)
    return 0


def run_stats(args: argparse.Namespace) -> int:
    """Prints the table of prepared stores; returns the exit status."""
    from rich.console import Console

    from tulu_jax.data.keys import mixture_specs, store_keys
    from tulu_jax.data.report import dataset_report, report_table
    from tulu_jax.data.store import open_store

    options = _options(args)
    tokenizer = options.load_tokenizer()
    stores = [
        open_store(key.folder(options.data_dir))
        for spec in mixture_specs(args.mixture)
        for key in store_keys(spec, options, tokenizer=tokenizer).values()
    ]
    reports = dataset_report(stores, row_length=options.max_length, packing=args.packing)
    Console().print(report_table(reports))
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Prints conversations with their mask; returns the exit status."""
    from rich.console import Console

    from tasks import read_conversations
    from tulu_jax.chat import encode, load_tokenizer, render_tokens
    from tulu_jax.data.specs import get_spec, locate_raw_dir

    spec = get_spec(args.task)
    tokenizer = load_tokenizer(args.tokenizer, args.encoding)
    folder = locate_raw_dir(spec, args.raw_dir)
    console = Console()
    conversations = read_conversations(
        spec.name, folder, tokenizer=tokenizer, split_name=args.split
    )
    for conversation in islice(conversations, args.n):
        encoded = encode(conversation["messages"], tokenizer, max_length=args.max_length)
        console.rule(conversation["id"], align="left")
        console.print(render_tokens(encoded, tokenizer))
        if encoded.dropped:
            console.print("DROPPED: no token carries loss")
    return 0


def _options(args: argparse.Namespace) -> PrepareOptions:
    from tulu_jax.data.keys import PrepareOptions

    return PrepareOptions(
        tokenizer=args.tokenizer,
        encoding=args.encoding,
        max_length=args.max_length,
        data_dir=args.data_dir,
        raw_dir=args.raw_dir,
        num_processes=args.num_processes,
    )


def _reader(options: PrepareOptions):  # noqa: ANN202 - prepare.Reader, not imported here
    """Reads embedded datasets directly, others by way of TFDS, which is imported only then."""

    def read(spec, split):  # noqa: ANN001, ANN202 - prepare.Reader
        if spec.embedded:
            return spec.read(None, split_name=split, **spec.options)
        print(f"{spec.task_name}: reading raw files with TensorFlow Datasets", flush=True)
        with _quiet():
            from tulu_jax.data.seqio_glue import read_prepared

            return read_prepared(spec, split, data_dir=options.data_dir, raw_dir=options.raw_dir)

    return read


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TensorFlow's start-up lines, which C++ writes to the file descriptor itself.

    TensorFlow sees no GPU: it would take the memory of the run that waits for the data.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    for name in ("absl", "tensorflow", "tensorflow_datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.stderr.flush()
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
