"""The `tulu` command: one sub-command a file, each loading what it needs only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from tulu_jax import __version__
from tulu_jax.cli.absent_tpu import leave_out_absent_tpu
from tulu_jax.cli.allocator import keep_memory, reuse_freed_memory
from tulu_jax.console import accept_every_character, end_quietly
from tulu_jax.errors import TuluError

COMMANDS = (
    "demo",
    "data",
    "train",
    "plan",
    "importer",
    "verify",
    "exporter",
    "diff",
    "adapter",
    "generate",
    "chat",
    "bench",
)
"""Modules of this room, in the order of `tulu --help`; each has `add_parser(subparsers)`."""

TRAINING = ("train", "demo", "bench")
"""Commands that gain from memory that is kept."""

COPYING = ("import", "export")
"""Commands that move weights through memory, and leave accelerators to others."""

CLOSED_PIPE = 141
"""Exit status, as of a program that the signal SIGPIPE ends: nobody reads what is printed."""

DESCRIPTION = """\
Instruction fine-tuning of language models in JAX.

  tulu data download ...   fetch raw files, resumable and checked
  tulu data inspect ...    look at conversations and the tokens that are trained
  tulu data prepare ...    tokenize datasets into a store (train does it by itself if need be)
  tulu plan ...            what a run takes, on hardware that need not be there
  tulu train ...           fine-tune; the same command line resumes
  tulu generate ...        answer prompts with a checkpoint
  tulu export ...          hand the result to Hugging Face tools

Start with `tulu demo`, or `make demo` in the repository."""


def make_parser() -> argparse.ArgumentParser:
    """The argument parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="tulu", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"tulu-jax {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"tulu_jax.cli.{name}").add_parser(subparsers)
    return parser


def _refuse_dashes(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuses `--flag=--`, of which argparse makes an empty list whatever the flag takes."""
    for argument in arguments:
        if argument.startswith("-") and argument.endswith("=--"):
            parser.error(f"argument {argument[:-3]}: has no value - got '--'")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status: 0 done, 2 a mistake the message explains, 130 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = make_parser()
    _refuse_dashes(parser, sys.argv[1:] if argv is None else argv)
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in ("train", "plan"):  # They take --gin.NAME=VALUE
        parser.error(f"unknown arguments: {' '.join(rest)}")
    args.overrides = rest
    if argv is None:
        accept_every_character()
        leave_out_absent_tpu()
    if argv is None and args.command in TRAINING:
        keep_memory()
    if argv is None and args.command in COPYING:
        reuse_freed_memory()
        if not getattr(args, "verify", False):  # which computes
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        return int(args.func(args) or 0)
    except TuluError as error:
        print(f"tulu {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        end_quietly()
        return CLOSED_PIPE
    except OSError as error:
        at = f" at {error.filename}" if error.filename else ""
        print(
            f"tulu {args.command}: cannot read or write - got {error.strerror or error}{at}"
            " - expected a readable file, or a writable folder with room",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"tulu {args.command}: interrupted", file=sys.stderr)
        return 130
