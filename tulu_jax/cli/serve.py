"""`tulu serve`: a model behind OpenAI's interface."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.engine import add_model_arguments, make_engine, open_model
from tulu_jax.cli.flags import new_command, number, path_argument, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import between
from tulu_jax.places import is_address

if TYPE_CHECKING:
    from tulu_jax.generate import Front

SLOTS = 16
MAX_QUEUE = 512
LONGEST = 8192
"""Tokens of the longest conversation, where the user does not say: memory is taken for all."""

DESCRIPTION = """\
Serves a model from a Hugging Face folder or a run folder to OpenAI's clients, to evaluation
harnesses and to curl: /v1/chat/completions, /v1/completions, /v1/models, /tokenize, /detokenize,
/tokenizer_info, /health and /metrics (for Prometheus); /openapi.json describes them.

One engine answers all clients together, in --slots slots; what a client gets is the same, to the
bit, whoever else is served. More requests wait, up to --max_queue; the next ones get status 429.

Only this machine is served (127.0.0.1) unless --host says otherwise, which needs a key: a line of
--api_key_file, or the environment's TULU_API_KEY. At SIGTERM or Ctrl-C no request is taken any
more, and answers that are begun are given to their end, for --drain_seconds at most.
"""

EPILOG = """\
examples:
  tulu serve --model exported
  tulu serve --model runs/alpaca --step 500 --dtype bfloat16 --slots 64
  tulu serve --model exported --host 0.0.0.0 --api_key_file keys.txt --name my-model

from another terminal:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "Name three colours."}], "temperature": 0}'
"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu serve` to the command line."""
    parser = new_command(
        subparsers,
        "serve",
        run,
        help="serve a model to OpenAI's clients",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_model_arguments(parser, sampling=False)
    parser.add_argument("--host", default="127.0.0.1", help="address to serve (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0, 65535), default=8000, help="default 8000; 0 takes a free one"
    )
    parser.add_argument("--name", help="what clients call the model (default: its folder's name)")
    parser.add_argument(
        "--api_key_file",
        type=path_argument,
        metavar="FILE",
        help="keys, one a line, of which clients must send one; nobody else may read the file",
    )
    parser.add_argument(
        "--slots",
        type=whole(1, 4096),
        metavar="N",
        default=SLOTS,
        help=f"requests worked on side by side (default {SLOTS}); fewer where memory is short",
    )
    parser.add_argument(
        "--max_queue",
        type=whole(0, 1_000_000),
        metavar="N",
        default=MAX_QUEUE,
        help=f"requests that wait besides, at most (default {MAX_QUEUE})",
    )
    for flag, default, text in (
        ("--timeout", 600.0, "seconds until an answer must be there, or a stream at its end"),
        ("--drain_seconds", 30.0, "seconds that begun answers get after SIGTERM"),
        ("--max_body_mb", 16.0, "largest request's body in MB"),
    ):
        limits = between(0.001, 1_000_000)
        parser.add_argument(
            flag, type=number(limits), metavar="X", default=default, help=f"{text} ({default:g})"
        )


def run(args: argparse.Namespace) -> int:
    """Serves until a signal; returns the exit status."""
    try:
        import tulu_jax.serve.app  # noqa: F401  # with all that the server needs
        from tulu_jax.serve import listen
        from tulu_jax.serve.keys import read_keys
    except ModuleNotFoundError as error:
        raise ConfigError(
            "packages of the server are missing",
            got=f"no {error.name}",
            do="pip install 'tulu-jax[serve]'",
        ) from error
    from tulu_jax.console import plain_console

    keys = read_keys(args.api_key_file, os.environ)
    listen.check_public(args.host, keys)
    bound = listen.bind(args.host, args.port)
    with bound:
        opened = open_model(args)
        longest = args.max_length or LONGEST
        console = plain_console(soft_wrap=True, stderr=True)
        engine = make_engine(args, opened, console, slots=args.slots, longest=longest)
        address = listen.url(args.host, bound)
        _serve(args, engine, keys, bound, address)
    return 0


def _serve(
    args: argparse.Namespace, engine: Front, keys: list[str], bound: Any, address: str
) -> None:
    from tulu_jax.console import write_verbatim
    from tulu_jax.serve.app import make_app
    from tulu_jax.serve.guard import Limits
    from tulu_jax.serve.listen import Server
    from tulu_jax.serve.runner import Runner
    from tulu_jax.serve.service import Service

    assert engine.tokenizer is not None  # a model has one here
    own = args.model if is_address(args.model) else Path(args.model).resolve()
    name = args.name or own.name
    limits = Limits(args.timeout, round(args.max_body_mb * 1e6), min(60.0, args.timeout))
    runner = Runner(engine, args.max_queue)
    service = Service(runner, engine.tokenizer, name, limits)
    server = Server(
        make_app(service, keys),
        drain_seconds=args.drain_seconds,
        on_ready=lambda: write_verbatim(
            start_line(engine, name, address) + "\n" + example(name, address, bool(keys))
        ),
    )
    server.run(sockets=[bound])
    write_verbatim("server ended")


def start_line(engine: Front, name: str, address: str) -> str:
    """What is served, and where."""
    return (
        f"serving {name} ({engine.config.num_params:,} weights) at {address}/v1 "
        f"in {engine.slots} slots of {engine.max_length:,} tokens; Ctrl-C ends"
    )


def example(name: str, address: str, with_key: bool) -> str:
    """A command line that asks the model something."""
    import json
    import shlex

    body = {"model": name, "messages": [{"role": "user", "content": "Name three colours."}]}
    words = ["curl", f"{address}/v1/chat/completions", "-H", "content-type: application/json"]
    key = ' -H "authorization: Bearer $TULU_API_KEY"' if with_key else ""
    return f"  {shlex.join(words)}{key} -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
