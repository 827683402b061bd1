"""What the commands of `tulu data` share: their options, and how conversations are read."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tulu_jax.data.keys import PrepareOptions
    from tulu_jax.data.prepare import Reader

MIXTURE_HELP = "a task such as tulu_demo, or several joined by commas"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what names a mixture and how it is prepared."""
    parser.add_argument("mixture", metavar="MIXTURE", help=MIXTURE_HELP)
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


def prepare_options(args: argparse.Namespace) -> PrepareOptions:
    """The options the command line gave."""
    from tulu_jax.data.keys import PrepareOptions

    return PrepareOptions(
        tokenizer=args.tokenizer,
        encoding=args.encoding,
        max_length=args.max_length,
        data_dir=args.data_dir,
        raw_dir=args.raw_dir,
        num_processes=args.num_processes,
    )


def make_reader(options: PrepareOptions) -> Reader:
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
