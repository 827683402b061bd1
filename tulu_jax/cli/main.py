"""The `tulu` command: one sub-command a file, each loading what it needs only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tulu_jax import __version__
from tulu_jax.cli.absent_tpu import leave_out_absent_tpu
from tulu_jax.cli.allocator import keep_memory, reuse_freed_memory
from tulu_jax.console import accept_every_character, end_quietly, leave_out_closed_loops
from tulu_jax.errors import TuluError

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""What XLA calls it when a device has no room."""

INTERNAL = 70
"""Exit status of an error that nobody foresaw (EX_SOFTWARE of sysexits.h)."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a program that the signal SIGINT ends."""

JUST_NOW_S = 5.0
"""An error within so many seconds of Ctrl-C comes from it."""

_interrupts: list[float] = []
"""When Ctrl-C was pressed."""

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
    "evaluate",
    "annotate",
    "serve",
    "bench",
    "report",
    "study",
)
"""Modules of this room, in the order of `tulu --help`; each has `add_parser(subparsers)`."""

TRAINING = ("train", "demo", "bench")
"""Commands that gain from memory that is kept."""

OWN_ARGUMENTS = ("train", "plan", "eval", "report", "study")
"""Commands that take what their parsers do not know: `--gin.NAME=VALUE`, or words of their own."""

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
  tulu eval ...            benchmark a checkpoint
  tulu serve ...           answer OpenAI's clients with one
  tulu export ...          hand the result to Hugging Face tools
  tulu report ...          tables of evaluation results, the paper's beside
  tulu annotate ...        let people compare two models, blind
  tulu study ...           all of that for many datasets and base models

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
    """Runs one command; the exit status.

    0: done. 2: a mistake that the message explains. 130: interrupted. 70: a fault of this program.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if argv is None:
        _note_interrupts()
    try:
        return _run(argv)
    except KeyboardInterrupt:
        _end_when_interrupted()
        print("tulu: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        _end_when_interrupted()


def _run(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    _refuse_dashes(parser, sys.argv[1:] if argv is None else argv)
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in OWN_ARGUMENTS:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    args.overrides = rest
    if argv is None:
        accept_every_character()
        leave_out_closed_loops()
        leave_out_absent_tpu()
    if argv is None and args.command in TRAINING:
        keep_memory()
    if argv is None and args.command in COPYING:
        reuse_freed_memory()
        if not getattr(args, "verify", False):  # which computes
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
    return guarded(f"tulu {args.command}", lambda: args.func(args))


def _note_interrupts() -> None:
    """Notes that Ctrl-C was pressed: libraries turn the exception into errors of their own."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _raise_again


def _end_when_interrupted() -> None:
    """Ctrl-C ends the process by now: there is nothing left but libraries' tidying up at exit."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _raise_again(dropped: Any) -> None:
    """Raises an interrupt anew that met a callback, such as JAX's at garbage, and would be lost."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
    elif signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()


def _interrupt(_signal: int, _frame: object) -> None:
    _interrupts.append(time.monotonic())
    raise KeyboardInterrupt


def guarded(name: str, command: Callable[[], int | None]) -> int:
    """Runs a command; whatever goes wrong is told in words, never by a traceback."""
    try:
        return int(command() or 0)
    except TuluError as error:
        return _tell(name, str(error))
    except BrokenPipeError:
        end_quietly()
        return CLOSED_PIPE
    except OSError as error:
        at = f" at {error.filename}" if error.filename else ""
        return _tell(
            name,
            f"cannot read or write - got {error.strerror or error}{at}"
            " - expected a readable file, or a writable folder with room",
        )
    except KeyboardInterrupt:
        return _tell(name, "interrupted", INTERRUPTED)
    except MemoryError as error:
        return _tell(
            name,
            f"this machine's memory is too small - got {error or 'no more memory'}"
            " - expected room for what is asked for - lower sizes such as BATCH_SIZE or --rows",
        )
    except Exception as error:
        if _interrupts and time.monotonic() - _interrupts[-1] < JUST_NOW_S:
            return _tell(name, "interrupted", INTERRUPTED)
        if OUT_OF_MEMORY in str(error):
            return _tell(name, _device_memory(error))
        return _tell(name, _own_fault(error), INTERNAL)


def _tell(name: str, text: str, status: int = 2) -> int:
    whole = f"{name}: {text}".encode(errors="backslashreplace")
    print(whole.decode(), file=sys.stderr)
    return status


def _device_memory(error: Exception) -> str:
    """What to do when a device has no room; XLA's own text says how much it asked for."""
    return (
        f"the devices' memory is too small - got {str(error).strip().splitlines()[0][:300]}"
        " - expected a step that fits - raise MICRO_BATCHES or MESH_FSDP, set REMAT='full', or "
        "lower BATCH_SIZE; `tulu plan` says what a run takes"
    )


def _own_fault(error: Exception) -> str:
    """What to say of an error that nobody foresaw; its traceback goes to a file."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="tulu-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"tulu-jax {__version__}: {' '.join(sys.argv)}\n\n{text}")
        kept = file.name
    except OSError:
        kept = "nowhere: no temporary folder can be written"
    what = str(error).strip().splitlines()[:1]
    return (
        f"a fault of tulu-jax itself - got {type(error).__name__}: {''.join(what)[:300]}"
        f" - the traceback is kept in {kept} - please report it with that file"
    )
