"""`tulu adapter`: an adapter in PEFT's format becomes a run folder."""

from __future__ import annotations

import argparse
from typing import Any

from tulu_jax.cli.flags import model_argument, new_command, place_argument
from tulu_jax.places import Place

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
    for line in _on_tokenizer(args.peft, args.base):
        note(line)
    console.print(f"checkpoint {step}")
    return 0


def _on_tokenizer(adapter: Place, base: Place) -> list[str]:
    """What to say of a tokenizer beside the adapter that is another than the base's.

    Adapters are trained with added tokens, or in another chat template, than their base knows.
    """
    from tulu_jax.chat import has_template, holds_tokenizer, load_model_tokenizer
    from tulu_jax.cli.exporter import own_tokenizer_place
    from tulu_jax.cli.own_tokenizer import first_other

    if not holds_tokenizer(adapter):
        return []
    place, beside = own_tokenizer_place(base, {}), load_model_tokenizer(adapter)
    if place is None:
        return ["the base has no tokenizer: give the adapter's, --tokenizer, to later commands"]
    own, differs = load_model_tokenizer(place), []
    if other := first_other(beside, own):
        differs.append(other)
    if beside.vocab_size != own.vocab_size:
        differs.append(f"{beside.vocab_size:,} tokens for {own.vocab_size:,}")
    if has_template(adapter) and beside.template.name != own.template.name:
        differs.append(f"chat template {beside.template.name} for {own.template.name}")
    said = "the tokenizer beside the adapter is not the base's"
    do = "the base's is used, where --tokenizer names no other"
    return [f"{said}: {'; '.join(differs)}; {do}"] if differs else []
