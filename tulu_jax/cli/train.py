"""`tulu train`: a gin-configured fine-tuning run."""

from __future__ import annotations

import argparse
import os
import textwrap
import time
from pathlib import Path
from typing import Any

from tulu_jax.cli.hosts import add_host_options, join_hosts

EXAMPLES = """\
examples:
  tulu train --gin_file=runs/demo.gin --gin.MODEL_DIR=runs/demo
  tulu train --gin_file=runs/alpaca_stories260k.gin --gin.MODEL_DIR=runs/alpaca \\
      --gin.INITIAL_CHECKPOINT_PATH=path/to/stories260k --gin.RAW_DIR=path/to/raw
  tulu train --gin_file=runs/demo.gin --gin.MODEL_DIR=runs/demo --gin.EVAL_TASKS=tulu_demo:100

The same command line resumes a run that was stopped, killed or pre-empted. Values that are not gin
values are text: quotes are not needed. Fields below the macros can be set too, such as
--gin.OptimizerConfig.b2=0.95. --print_config shows what a run would do and stops.
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command to the `tulu` parser."""
    parser = subparsers.add_parser(
        "train",
        help="fine-tune a model; the same command line resumes",
        description="Fine-tunes a model on instruction data, as gin files describe it.",
        epilog=EXAMPLES,
        formatter_class=_MacroHelp,
        usage="tulu train --gin_file=FILE [--gin.NAME=VALUE ...]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--gin_file",
        action="append",
        required=True,
        metavar="FILE",
        help="recipe, as a path or within gin_configs/; may be repeated, later ones win",
    )
    parser.add_argument(
        "--gin_bindings", action="append", default=[], metavar="'NAME = VALUE'",
        help="one gin binding, quoted as gin wants it",
    )  # fmt: skip
    parser.add_argument(
        "--print_config",
        action="store_true",
        help="print the resolved settings, check all that can be known before data, and stop",
    )
    parser.add_argument(
        "--profile", nargs="?", type=int, const=3, metavar="STEPS",
        help="trace a few steps (3) for xprof into MODEL_DIR/profile; as PROFILE_STEPS",
    )  # fmt: skip
    add_host_options(parser)
    parser.set_defaults(func=run)


class _MacroHelp(argparse.RawDescriptionHelpFormatter):
    """Lists the macros, which live in a module that is slow to import."""

    def format_help(self) -> str:
        from tulu_jax.cli.gin_config import MACROS

        wide = 30 * " "
        rows = (
            textwrap.fill(f"  {name:26}  {text}", 100, subsequent_indent=wide)
            for name, text in MACROS.items()
        )
        return super().format_help() + "\nsettings:\n" + "\n".join(rows) + "\n"


def run(args: argparse.Namespace) -> int:
    """Loads the settings, prints them, trains."""
    from tulu_jax.cli.gin_config import load_train_config, parse_overrides, to_gin

    bindings = args.gin_bindings + parse_overrides(args.overrides)
    if args.profile is not None:
        bindings.append(f"PROFILE_STEPS = {args.profile}")
    config = load_train_config(args.gin_file, bindings)
    settings = to_gin(config)
    from tulu_jax.console import plain_console, print_line

    talks = args.print_config or join_hosts(args)
    console = plain_console(quiet=not talks)
    console.rule("settings")
    console.print(settings, soft_wrap=True)
    from tulu_jax.cli.train_eval import open_tasks

    evaluate = open_tasks(config, lambda line: print_line(console, line))
    if args.print_config:
        from tulu_jax.train.checks import check_before_data

        check_before_data(config)
        console.print("Checked: settings, names of data, tokenizer, model and run folder fit.")
        return 0
    from tulu_jax.inspect.report import print_training_data
    from tulu_jax.train.loop import train

    train(
        config,
        settings=settings,
        console=console,
        spent_s=_process_age_s(),
        show_data=lambda data: print_training_data(data, config.data, console),
        evaluate=evaluate,
    )
    return 0


def _process_age_s() -> float:
    """Seconds since this process was started, imports and all; 0 where that cannot be told."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
