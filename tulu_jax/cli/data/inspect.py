"""`tulu data inspect`: conversations as the model sees them."""

from __future__ import annotations

import argparse
from itertools import islice


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `tulu data inspect`."""
    inspect = commands.add_parser(
        "inspect",
        help="show conversations as tokens, those that carry loss in colour",
        description="The first conversations of a task as the model sees them: tokens that "
        "carry loss in colour. Reads the raw files; nothing has to be prepared.",
    )
    inspect.add_argument("task", help="a task such as tulu_demo")
    inspect.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    inspect.add_argument("--encoding", choices=("hf", "paper"), default="hf")
    inspect.add_argument("--max_length", type=int, help="cut conversations after so many tokens")
    inspect.add_argument("--raw_dir", help="folder with the raw files, or with one folder a task")
    inspect.add_argument("--split", default="train")
    inspect.add_argument("--n", type=int, default=3, help="how many conversations (default 3)")
    inspect.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Prints conversations with their mask; returns the exit status."""
    from rich.console import Console

    from tasks import read_conversations
    from tulu_jax.chat import encode, load_tokenizer, render_tokens
    from tulu_jax.data.specs import get_spec, locate_raw_dir

    spec = get_spec(args.task)
    tokenizer = load_tokenizer(args.tokenizer, args.encoding)
    folder = locate_raw_dir(spec, args.raw_dir)
    console = Console()
    conversations = read_conversations(
        spec.name, folder, tokenizer=tokenizer, split_name=args.split
    )
    for conversation in islice(conversations, args.n):
        encoded = encode(conversation["messages"], tokenizer, max_length=args.max_length)
        console.rule(conversation["id"], align="left")
        console.print(render_tokens(encoded, tokenizer))
        if encoded.dropped:
            console.print("DROPPED: no token carries loss")
    return 0
