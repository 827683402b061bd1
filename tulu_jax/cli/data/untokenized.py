"""Conversations as they are read, for those who have no tokenizer at hand yet."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.text import Text

from tulu_jax.chat.viewer import MASKED, NEWLINE, TRAINED
from tulu_jax.console import visible
from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from tulu_jax.data.specs import Conversation

NEEDS_TOKENS = ("html", "packed", "data_dir", "min_tokens", "max_tokens", "only")
"""Flags of `tulu data inspect` that are about tokens."""


def check_flags(args: argparse.Namespace) -> None:
    """Passes when nothing is asked for that only a tokenizer can tell.

    Raises: ConfigError naming the flag otherwise.
    """
    for name in NEEDS_TOKENS:
        if getattr(args, name):
            raise ConfigError(
                f"--{name} is about tokens and there is no tokenizer",
                do="name its folder with --tokenizer",
            )


def render_conversation(task: str, conversation: Conversation, *, colour: bool = True) -> Text:
    """A head line, then who says what; the text that is trained is green, or in double brackets."""
    from tulu_jax.data.parts import count_answers
    from tulu_jax.inspect.report import answer_lines

    messages = conversation["messages"]
    text = Text()
    text.append(f"── {visible(conversation['id'])} ", "bold").append(f"({task})\n")
    for message in messages:
        answer = message["role"] == "assistant"
        trained = answer and message.get("train", True)
        said = " (not trained)" if answer and not trained else ""
        text.append(f"{message['role']}{said}:\n", "bold")
        content = visible(message["content"].strip()).replace("\n", NEWLINE + "\n")
        if trained and not colour:
            content = f"[[{content}]]"
        text.append(content + "\n", TRAINED if trained else MASKED)
    for note in answer_lines(count_answers([messages])):
        text.append(note + "\n", "yellow")
    if not messages:
        text.append("DROPPED: no message\n", "bold red")
    return text
