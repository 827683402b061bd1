"""`tulu adapter`: an adapter in PEFT's format becomes a run folder."""

from __future__ import annotations

import argparse
from typing import Any

from tulu_jax.cli.flags import model_argument, new_command, place_argument

DESCRIPTION = """\
Turns an adapter in PEFT's format (adapter_config.json beside adapter_model.safetensors or .bin)
into checkpoint 0 of a run folder beside its base. `tulu export` writes it back, or with --merge as
a whole model; `tulu generate` and `tulu chat` run it. What its config says and we do not do is
refused by name.
"""

EPILOG = """\
example:
  tulu adapter --peft adapter --base llama-7b --model_dir runs/adapter
"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu adapter` to the command line."""
    parser = new_command(
        subparsers,
        "adapter",
        run,
        help="PEFT adapter -> run folder",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--peft", type=model_argument, required=True, metavar="DIR", help="the adapter's folder"
    )
    parser.add_argument(
        "--base", type=model_argument, required=True, metavar="DIR", help="the base model's folder"
    )
    parser.add_argument(
        "--model_dir", type=place_argument, required=True, metavar="OUT", help="run folder to make"
    )


def run(args: argparse.Namespace) -> int:
    """Imports and reports; returns the exit status."""
    from tulu_jax.checkpoint.merged import import_peft
    from tulu_jax.console import plain_console

    console = plain_console(soft_wrap=True)

    def note(text: str) -> None:
        console.print(f"note {text}", style="yellow")

    step = import_peft(args.peft, args.base, args.model_dir, note=note)
    console.print(f"checkpoint {step}")
    return 0
