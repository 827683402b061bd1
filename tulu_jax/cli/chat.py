"""`tulu chat`: a conversation with a model in the terminal."""

from __future__ import annotations

import argparse
import io
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.engine import add_model_arguments, checked_sampling, make_engine, open_model
from tulu_jax.cli.flags import new_command
from tulu_jax.errors import DataError

if TYPE_CHECKING:
    from tulu_jax.chat import Message, Tokenizer
    from tulu_jax.generate import Front, Sampling

CONVERSATION_TOKENS = 8192
"""Of the longest conversation, where the user does not say: memory is taken for all of them."""

DESCRIPTION = """\
Talks to a model from a Hugging Face folder or a run folder. Answers appear as they are made; the
model sees the whole conversation until /reset. Ctrl-C stops an answer, Ctrl-D or /quit leaves.
"""

HELP = """\
/reset         forget the conversation (a system message stays)
/system TEXT   begin anew with TEXT as system message; without TEXT, with none
/help          this list
/quit          leave (so does Ctrl-D)"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu chat` to the command line."""
    parser = new_command(
        subparsers,
        "chat",
        run,
        help="talk to a model",
        description=DESCRIPTION,
        epilog="within the conversation:\n" + HELP,
    )
    add_model_arguments(parser)
    parser.add_argument("--system", help="system message to begin with")


def run(args: argparse.Namespace) -> int:
    """Runs the conversation until the user leaves; returns the exit status."""
    from tulu_jax.console import plain_console

    console = plain_console(soft_wrap=True)
    sampling = checked_sampling(args)
    opened = open_model(args)
    engine = make_engine(
        args, opened, console, slots=1, requests=1, longest=args.max_length or CONVERSATION_TOKENS
    )
    console.print(
        f"{args.model}, {opened.config.num_params:,} weights. "
        "Write a message; /help lists commands.",
        style="dim",
    )
    talk = Conversation(engine, opened.tokenizer, sampling, args.max_new_tokens, args.seed, console)
    talk.begin(args.system)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is refused by line
    while True:
        try:
            line = _read_line(console)
        except (EOFError, KeyboardInterrupt):
            console.print()
            return 0
        if line in ("/quit", "/exit"):
            return 0
        if line.startswith("/"):
            talk.command(line)
        elif line:
            talk.say(line)


def _read_line(console: Any) -> str:
    """What the user writes next.

    Raises:
      EOFError: there is no more, or no standard input at all.
    """
    from rich.text import Text

    if sys.stdin is None or sys.stdin.closed:
        raise EOFError
    return console.input(Text("you> ", "bold cyan")).strip()


class Conversation:
    """The messages so far, and the way to get the next answer."""

    def __init__(
        self,
        engine: Front,
        tokenizer: Tokenizer,
        sampling: Sampling,
        max_new_tokens: int,
        seed: int,
        console: Any,
    ) -> None:
        """Starts without messages."""
        self._engine = engine
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._max_new_tokens = max_new_tokens
        self._seed = seed
        self._console = console
        self.messages: list[Message] = []

    def begin(self, system: str | None) -> None:
        """Forgets everything and takes `system` as system message, if any."""
        self.messages = [{"role": "system", "content": system}] if system else []

    def command(self, line: str) -> None:
        """Does what a line that starts with / asks for."""
        name, _, rest = line.partition(" ")
        if name == "/reset":
            kept = [message for message in self.messages if message["role"] == "system"]
            self.begin(kept[0]["content"] if kept else None)
            self._console.print("conversation forgotten", style="dim")
        elif name == "/system":
            self.begin(rest.strip() or None)
            said = "with this" if rest.strip() else "without"
            self._console.print(f"new conversation {said} system message", style="dim")
        else:
            if name != "/help":
                self._console.print(f"unknown command {name}", style="red")
            self._console.print(HELP, style="dim")

    def say(self, text: str) -> None:
        """Adds the user's message and the model's answer, which is shown as it is made."""
        asked: list[Message] = [*self.messages, {"role": "user", "content": text}]
        try:
            answer = self._answer(asked)
        except DataError as error:
            self._console.print(str(error), style="red")
            return
        self.messages = [*asked, {"role": "assistant", "content": answer}]

    def _answer(self, messages: list[Message]) -> str:
        from tulu_jax.chat import encode_prompt
        from tulu_jax.console import write_verbatim

        prompt = encode_prompt(messages, self._tokenizer)
        if len(prompt) >= self._engine.max_length:
            raise DataError(
                "conversation is too long for the model",
                got=f"{len(prompt)} tokens",
                expected=f"fewer than {self._engine.max_length}",
                do="/reset starts a new one" if len(messages) > 2 else "write a shorter message",
            )
        pieces = self._engine.stream(
            prompt,
            max_new_tokens=self._max_new_tokens,
            sampling=self._sampling,
            seed=(self._seed + len(messages)) % 2**32,
        )
        text = ""
        try:
            with closing(pieces):  # which ends the request, wherever Ctrl-C comes
                for piece in pieces:
                    text += piece
                    write_verbatim(piece, end="")
        except KeyboardInterrupt:
            self._console.print(" (stopped)", style="dim", end="")
        write_verbatim("")
        return text
