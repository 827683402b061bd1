"""`tulu generate`: answers to one prompt or to a file of them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tulu_jax.cli.paths import path_argument
from tulu_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.generate import Generator

MAX_NEW_TOKENS = 256
"""Tokens of the longest answer, where the user does not say."""

DESCRIPTION = """\
Answers prompts with a model from a Hugging Face folder or a run folder (its newest checkpoint).

A prompt is a user's message and is put into the chat format the model was trained with; with --raw
it is plain text to go on from. A file holds one JSON object a line, with `messages` (a conversation
that ends with the user) or `prompt`; each line comes back with `output`, `output_tokens` and
`stopped` ("eos" or "length") added, in the same order.
"""

EPILOG = """\
examples:
  tulu generate --model runs/demo --prompt "Name three colours."
  tulu generate --model exported --input questions.jsonl --output answers.jsonl --batch_size 32
  tulu generate --model models/stories260k --raw --prompt "Once upon a time" --temperature 0.8
"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu generate` to the command line."""
    parser = subparsers.add_parser(
        "generate",
        help="answer prompts with a model",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", help="one prompt; the answer is printed")
    source.add_argument("--input", type=path_argument, metavar="JSONL", help="file of prompts")
    parser.add_argument(
        "--output", type=path_argument, metavar="JSONL", help="file to write answers to"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it exists")
    parser.add_argument("--raw", action="store_true", help="continue prompts as plain text")
    parser.add_argument("--batch_size", type=int, default=8, help="prompts at a time (default 8)")
    parser.set_defaults(func=run)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `generate` and `chat` share."""
    parser.add_argument(
        "--model",
        type=path_argument,
        required=True,
        metavar="PATH",
        help="Hugging Face or run folder",
    )
    parser.add_argument("--step", type=int, help="checkpoint of a run folder (default: newest)")
    parser.add_argument(
        "--tokenizer",
        type=path_argument,
        metavar="PATH",
        help="tokenizer (default: the model's own)",
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)"
    )
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="draw from the smallest set with this mass"
    )
    parser.add_argument("--top_k", type=int, default=0, help="draw from the k likeliest (0: all)")
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        metavar="N",
        help=f"longest answer in tokens (default {MAX_NEW_TOKENS}, or what the model has room for)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random draws (default 0)")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="dtype of computation"
    )


def run(args: argparse.Namespace) -> int:
    """Generates and reports; returns the exit status."""
    from tulu_jax.console import plain_console, write_verbatim
    from tulu_jax.generate import Sampling

    console = plain_console(soft_wrap=True)
    sampling = Sampling(args.temperature, args.top_p, args.top_k)
    rows = read_rows(args.input) if args.input else [{"prompt": args.prompt}]
    output = Path(args.output) if args.output else None
    _check_output(output, args)
    generator, tokenizer = load_model(args, console)
    prompts = [_tokens(row, tokenizer, args.raw, f"row {i}") for i, row in enumerate(rows, 1)]
    if args.max_new_tokens is None:
        room = generator.config.max_length - max(map(len, prompts), default=0)
        args.max_new_tokens = max(1, min(MAX_NEW_TOKENS, room))
    start = time.perf_counter()
    with _sink(output) as partial, _progress(console, len(rows)) as advance:

        def finish(indices: list[int], answers: list[list[int]]) -> None:
            for index, answer in zip(indices, answers, strict=True):
                rows[index] |= _answer(answer, tokenizer, args)
                if partial is not None:
                    partial.write(json.dumps(rows[index], ensure_ascii=False) + "\n")
                    partial.flush()
            advance(len(indices))

        answers = generator.generate(
            prompts,
            max_new_tokens=args.max_new_tokens,
            sampling=sampling,
            batch_size=args.batch_size,
            seed=args.seed,
            on_batch=finish,
        )
    seconds = time.perf_counter() - start
    if output is None:
        for row in rows:
            write_verbatim(row["output"])
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        output.write_text(text, encoding="utf-8")
        _partial(output).unlink()
        console.print(f"{len(rows)} answers -> {output}")
    made = sum(map(len, answers))
    plain_console(stderr=True).print(
        f"{made} tokens in {seconds:.1f} s, compilation included: {made / seconds:,.0f} tokens/s"
    )
    return 0


def load_model(args: argparse.Namespace, console: Any) -> tuple[Generator, Tokenizer]:
    """The model and tokenizer that `--model` names, weights moved to the device one by one.

    Raises:
      CheckpointError: neither a Hugging Face folder nor a run folder, or a damaged one.
      ConfigError: no tokenizer.
    """
    import jax.numpy as jnp

    from tulu_jax.checkpoint.hf import open_folder
    from tulu_jax.checkpoint.hf.generation import all_stops
    from tulu_jax.checkpoint.hf.kinds import no_model
    from tulu_jax.checkpoint.hf.load import cast, numpy_dtype, put
    from tulu_jax.checkpoint.manager import model_config
    from tulu_jax.checkpoint.merged import open_weights
    from tulu_jax.cli.exporter import find_tokenizer
    from tulu_jax.console import WARNING, plain_console, print_line
    from tulu_jax.generate import Generator
    from tulu_jax.models import ComputeConfig

    path = Path(args.model)
    if (path / "checkpoints").is_dir():
        reader: Any = open_weights(path, args.step)
        config, meta = model_config(reader), reader.meta
        kept = meta.get("generation")
    elif (path / "config.json").is_file():
        reader, meta = open_folder(path, args.dtype), {}
        config, kept = reader.config, reader.generation
    else:
        raise no_model(path, expected="a Hugging Face folder (config.json) or a run (checkpoints/)")
    tokenizer = find_tokenizer(path, args.tokenizer, meta)
    if tokenizer is None:
        raise ConfigError("no tokenizer", got="--tokenizer none", expected="a path")
    params: dict[str, Any] = {}
    for note in getattr(reader, "notes", []):
        print_line(plain_console(stderr=True), f"note {note}", WARNING)
    with console.status(f"loading {config.num_params:,} weights"):
        for name in reader.paths():
            array = cast(reader.read(name), numpy_dtype(args.dtype), "/".join(name))
            put(params, name, jnp.asarray(array))
    compute, stops = ComputeConfig(dtype=args.dtype), all_stops(config, kept)
    return Generator(config, params, compute=compute, stop_ids=stops), tokenizer


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; blank lines are skipped.

    Raises:
      DataError: the file is unreadable, a line is no JSON object, or has no prompt.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise DataError("input cannot be read", got=error, at=path) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        at = f"{path} line {number}"
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise DataError("line is not JSON", got=error, at=at, do="fix the line") from error
        if not isinstance(row, dict) or not ({"messages", "prompt"} & set(row)):
            raise DataError("line holds no prompt", at=at, expected="a field messages or prompt")
        if "messages" not in row and not isinstance(row["prompt"], str):
            raise DataError("prompt is not text", got=type(row["prompt"]).__name__, at=at)
        rows.append(row)
    if not rows:
        raise DataError("input is empty", at=path, expected="one JSON object a line")
    return rows


def _tokens(row: dict[str, Any], tokenizer: Tokenizer, raw: bool, at: str) -> Any:
    from tulu_jax.chat import check_messages, encode_prompt

    if raw and "messages" not in row:
        return [*tokenizer.start_ids, *tokenizer.encode_text(row["prompt"])]
    messages = row.get("messages", [{"role": "user", "content": row.get("prompt")}])
    check_messages(messages, at)
    return encode_prompt(messages, tokenizer)


def _answer(tokens: list[int], tokenizer: Tokenizer, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "output": tokenizer.decode(tokens, after=True),
        "output_tokens": len(tokens),
        "stopped": "eos" if len(tokens) < args.max_new_tokens else "length",
    }


def _check_output(output: Path | None, args: argparse.Namespace) -> None:
    if args.batch_size < 1:
        raise ConfigError("--batch_size is impossible", got=args.batch_size, expected=">= 1")
    if output is not None and output.exists() and not args.overwrite:
        raise ConfigError("output exists", at=output, do="choose another, or add --overwrite")


def _partial(output: Path) -> Path:
    """Where answers are kept, in the order they come, until all are there."""
    return output.with_name(output.name + ".partial")


@contextmanager
def _sink(output: Path | None) -> Iterator[TextIO | None]:
    if output is None:
        yield None
        return
    try:
        file = _partial(output).open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError("output cannot be written", got=error, at=output) from error
    with file:
        yield file


@contextmanager
def _progress(console: Any, total: int) -> Iterator[Any]:
    """A progress bar over prompts; nothing for a single one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    if total == 1:
        yield lambda count: None
        return
    columns = (TextColumn("generating"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)
