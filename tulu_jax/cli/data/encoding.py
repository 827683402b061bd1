"""How the commands of `tulu data` turn conversations into tokens: encoding, chat template."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer


def tokenizer_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_encoding_options` gave, as fields of `PrepareOptions` and `DataConfig`."""
    added: list[str] = args.add_tokens or []
    return {
        "encoding": args.encoding or "hf",
        "chat_template": args.chat_template or "tulu",
        "add_tokens": added[0] if added == ["template"] else tuple(added),
    }


def chosen_tokenizer(args: argparse.Namespace) -> Tokenizer:
    """The tokenizer that the command line names; a chat template of its own is said aloud.

    Raises: ConfigError when there is none.
    """
    from tulu_jax.chat import load_tokenizer
    from tulu_jax.errors import ConfigError

    if args.tokenizer is None:
        raise ConfigError("no tokenizer is named", do="name its folder with --tokenizer")

    options = tokenizer_options(args)
    tokenizer = load_tokenizer(
        args.tokenizer,
        options["encoding"],
        template=options["chat_template"],
        add_tokens=options["add_tokens"],
    )
    say_template(args.chat_template, tokenizer)
    return tokenizer


def say_template(asked: str, tokenizer: Tokenizer) -> None:
    """Says on the error stream which template the tokenizer folder's own is, if that was asked."""
    if asked == "checkpoint":
        print(f"Chat template: {tokenizer.template.name}, the tokenizer's own", file=sys.stderr)
