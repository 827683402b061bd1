"""`tulu diff`: a tuned model as what it adds to its base, and back."""

from __future__ import annotations

import argparse
from typing import Any

from tulu_jax.cli.flags import model_argument, new_command, path_argument

DESCRIPTION = """\
make:  writes tuned - base, tensor by tensor, as a Hugging Face folder that may be published where
       the base may not. Checksums of both go with it, and the few numbers that addition would not
       give back exactly.
apply: writes base + diff: the tuned model, bit for bit. A base other than the one the diff was
       made with is refused. Diffs of open-instruct's scripts/weight_diff.py are taken too; they
       have no checksums, so their base cannot be checked.
"""

EPILOG = """\
examples:
  tulu diff make --base llama-7b --tuned exported --output tulu-7b-diff
  tulu diff apply --base llama-7b --diff tulu-7b-diff --output tulu-7b
"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu diff make` and `tulu diff apply` to the command line."""
    parser = new_command(
        subparsers,
        "diff",
        run,
        help="make or apply a weight diff",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    actions = parser.add_subparsers(dest="action", metavar="make|apply", required=True)
    make = actions.add_parser("make", help="tuned - base", description="Writes tuned - base.")
    apply = actions.add_parser("apply", help="base + diff", description="Writes base + diff.")
    for action in (make, apply):
        action.add_argument(
            "--base",
            type=model_argument,
            required=True,
            metavar="DIR",
            help="the base model's folder",
        )
        action.add_argument(
            "--output", type=path_argument, required=True, metavar="DIR", help="folder to make"
        )
    make.add_argument(
        "--tuned",
        type=model_argument,
        required=True,
        metavar="DIR",
        help="the tuned model's folder",
    )
    apply.add_argument(
        "--diff", type=model_argument, required=True, metavar="DIR", help="the diff's folder"
    )
    apply.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of the result (default: the tuned model's)",
    )


def run(args: argparse.Namespace) -> int:
    """Makes or applies a diff and reports; returns the exit status."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from tulu_jax.checkpoint.diff import apply_diff, make_diff
    from tulu_jax.console import plain_console, task_name

    console = plain_console(soft_wrap=True)
    columns = (task_name(), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("tensors", total=None)

        def report(_: str, done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if args.action == "make":
            result = make_diff(args.base, args.tuned, args.output, on_progress=report)
        else:
            result = apply_diff(
                args.base, args.diff, args.output, dtype=args.dtype, on_progress=report
            )
    console.print(
        f"{result.num_tensors} tensors, {result.num_weights:,} weights, {result.num_kept:,} kept "
        f"as they are because base + diff is not exact there -> {result.folder}"
    )
    console.print(f"sum of the tuned model's weights {result.total:.4f}")
    if args.action == "apply":
        console.print(
            "checksums of base and result agree with the diff's"
            if result.checked
            else "note: the diff has no checksums: that base and result are right is not checked"
        )
    return 0
