"""The tokenizer and chat template that a model is asked with, beside those that are its own.

Answers and scores of a model that is asked in another format, or in other tokens, than it knows
look like any other: so `generate`, `chat`, `serve` and `eval` say it aloud.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tulu_jax.chat import has_template, load_model_tokenizer
from tulu_jax.cli.exporter import own_tokenizer_place
from tulu_jax.console import WARNING, plain_console, print_line

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer


def say_tokenizer(args: argparse.Namespace, meta: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Says which chat template is used where that is not plain, aloud what is not the model's own.

    Args:
      args: the command's, with `model`, `tokenizer` and `chat_template`.
      meta: of a run's checkpoint; empty of a Hugging Face folder.
      tokenizer: the one that is used, with its chat template.
    """
    console, name = plain_console(stderr=True), tokenizer.template.name
    known = meta.get("chat_template", "tulu") if "tokenizer" in meta else None
    own = _own_tokenizer(args, meta)
    if own is not None and has_template(own.path):
        known = own.template.name
    if own is not None and (other := first_other(tokenizer, own)):
        print_line(console, f"Tokenizer: not the model's own: {other}", WARNING)
    if known not in (None, name, "unknown"):
        flag = "--tokenizer" if args.chat_template is None else "--chat_template"
        text = f"Chat template: {name}, though the model's own is {known}: leave {flag} out"
        print_line(console, f"{text} for that", WARNING)
    elif name != "tulu":
        print_line(console, f"Chat template: {name}")


def _own_tokenizer(args: argparse.Namespace, meta: dict[str, Any]) -> Tokenizer | None:
    """That in a model's own folder, where the flags name another, or a chat template.

    None where the folder has none. With a model that was trained here no other is taken.
    """
    if "tokenizer" in meta or (args.tokenizer is None and args.chat_template is None):
        return None
    place = own_tokenizer_place(args.model, meta)
    return None if place is None else load_model_tokenizer(place)


def first_other(tokenizer: Tokenizer, own: Tokenizer) -> str | None:
    """The first token that is another piece in each, in words; None where all are alike."""
    for token in range(min(tokenizer.vocab_size, own.vocab_size)):
        here, there = tokenizer.piece(token), own.piece(token)
        if here != there:
            return f"token {token} is {here!r}, and {there!r} in {own.path.parent}"
    return None
