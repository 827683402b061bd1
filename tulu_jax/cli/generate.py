"""`tulu generate`: answers to one prompt or to a file of them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from tulu_jax.cli.flags import new_command, number, path_argument, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import LARGEST, PORTION, least

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer
    from tulu_jax.generate import Completion, Engine, Request, Sampling
    from tulu_jax.models import ModelConfig

MAX_NEW_TOKENS = 256
"""Tokens of the longest answer, where the user does not say."""

LENGTH_STEP = 256
"""The cache is made for a multiple of so many tokens: few shapes, few compilations."""

DESCRIPTION = """\
Answers prompts with a model from a Hugging Face folder or a run folder (its newest checkpoint).

A prompt is a user's message and is put into the chat format the model was trained with; with --raw
it is plain text to go on from. A file holds one JSON object a line, with `messages` (a conversation
that ends with the user) or `prompt`; each line comes back with `output`, `output_tokens` and
`stopped` ("eos", "stop:<text>", "length", or "room" where the model's length ended it) added, in
the same order. A line that has these fields already is refused, and one with tools, images or other
fields that the model would not see.
"""

EPILOG = """\
examples:
  tulu generate --model runs/demo --prompt "Name three colours."
  tulu generate --model exported --input questions.jsonl --output answers.jsonl --batch_size 32
  tulu generate --model models/stories260k --raw --prompt "Once upon a time" --temperature 0.8
"""


def add_parser(subparsers: Any) -> None:
    """Adds `tulu generate` to the command line."""
    parser = new_command(
        subparsers,
        "generate",
        run,
        help="answer prompts with a model",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_model_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", help="one prompt; the answer is printed")
    source.add_argument("--input", type=path_argument, metavar="JSONL", help="file of prompts")
    parser.add_argument(
        "--output", type=path_argument, metavar="JSONL", help="file to write answers to"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it exists")
    parser.add_argument(
        "--answer_field",
        default="output",
        metavar="NAME",
        help="field for answers (default output)",
    )
    parser.add_argument(
        "--drop_last_answer",
        action="store_true",
        help="ask anew for the answer that a conversation ends with; the model does not see it",
    )
    parser.add_argument("--raw", action="store_true", help="continue prompts as plain text")
    parser.add_argument(
        "--batch_size",
        type=whole(1),
        default=16,
        help="most prompts that run side by side (default 16, or what memory has room for)",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end answers before this text; may be given several times",
    )


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
        "--base",
        type=path_argument,
        metavar="DIR",
        help="where the base of a run's adapters lies now (default: as in training)",
    )
    parser.add_argument(
        "--tokenizer",
        type=path_argument,
        metavar="PATH",
        help="tokenizer (default: the model's own)",
    )
    parser.add_argument(
        "--chat_template",
        metavar="NAME",
        help="how conversations are written (default: as the model was trained; else its folder's "
        "own chat template, or tulu where it has none)",
    )
    parser.add_argument(
        "--temperature",
        type=number(least(0)),
        default=0.0,
        help="0 takes the likeliest token (default)",
    )
    parser.add_argument(
        "--top_p",
        type=number(PORTION),
        default=1.0,
        help="draw from the smallest set with this mass",
    )
    parser.add_argument(
        "--top_k", type=whole(0), default=0, help="draw from the k likeliest (0: all)"
    )
    parser.add_argument(
        "--max_new_tokens",
        type=whole(1),
        metavar="N",
        default=MAX_NEW_TOKENS,
        help=f"longest answer in tokens (default {MAX_NEW_TOKENS}); fewer where the model's length "
        "is reached",
    )
    parser.add_argument(
        "--max_length",
        type=whole(1),
        metavar="N",
        help="longest prompt and answer together (default: the model's); more than the model was "
        "trained on is possible with rotary positions",
    )
    parser.add_argument(
        "--seed", type=whole(0, LARGEST), default=0, help="of the random draws (default 0)"
    )
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="dtype of computation"
    )


def run(args: argparse.Namespace) -> int:
    """Generates and reports; returns the exit status."""
    from tulu_jax.cli.prompts import Prompt, not_seen, prompt_tokens, read_prompts
    from tulu_jax.console import plain_console, print_line

    errors = plain_console(stderr=True)
    sampling = checked_sampling(args)
    _check_output(args)
    if args.input:
        prompts = read_prompts(
            args.input, answer_field=args.answer_field, drop_last_answer=args.drop_last_answer
        )
        for line in not_seen(prompts):
            print_line(errors, line)
    else:
        prompts = [Prompt({"prompt": args.prompt}, "--prompt")]
    opened = open_model(args)
    made = [prompt_tokens(prompt, opened.tokenizer, raw=args.raw) for prompt in prompts]
    tokens = [ids for ids, _ in made]
    dropped = sum(answered for _, answered in made)
    if dropped:
        print_line(
            errors, f"the last answer is not shown in {dropped} of {len(made)} conversations"
        )
    elif args.drop_last_answer:
        print_line(errors, "note --drop_last_answer does nothing: no line ends with an answer")
    requests = _requests(args, sampling, tokens)
    opened.check(requests, [prompt.at for prompt in prompts])
    longest = max(map(len, tokens)) + args.max_new_tokens
    engine = make_engine(
        args, opened, errors, slots=min(args.batch_size, len(prompts)), longest=longest
    )
    start = time.perf_counter()
    rows = [prompt.fields for prompt in prompts]
    answers = _answer_all(args, engine, requests, rows)
    seconds = time.perf_counter() - start
    if args.output is not None:
        plain_console(soft_wrap=True).print(f"{len(rows)} answers -> {args.output}")
    _report(errors, engine, answers, seconds)
    return 0


def _requests(args: argparse.Namespace, sampling: Sampling, tokens: list[Any]) -> list[Request]:
    from tulu_jax.generate import Request

    return [
        Request(
            ids,
            args.max_new_tokens,
            sampling,
            seed=args.seed,
            stream=index,
            stop_strings=tuple(args.stop),
        )
        for index, ids in enumerate(tokens)
    ]


def _report(console: Any, engine: Engine, answers: list[Completion], seconds: float) -> None:
    """Says how fast it went, and which answers had no room."""
    from tulu_jax.console import WARNING, print_line

    full = sum(answer.stop_reason == "room" for answer in answers)
    if full:
        print_line(
            console,
            f"note {full} of {len(answers)} answers end where the model's length of "
            f"{engine.max_length:,} tokens does (--max_length)",
            WARNING,
        )
    for line in engine.stats.lines():
        print_line(console, line)
    count = sum(len(answer.tokens) for answer in answers)
    print_line(
        console,
        f"{count} tokens in {seconds:.1f} s, compilation included: {count / seconds:,.0f} tokens/s",
    )


def _answer_all(
    args: argparse.Namespace, engine: Engine, requests: list[Request], rows: list[dict[str, Any]]
) -> list[Completion]:
    """The answers; puts them into the rows and writes or prints them."""
    from tulu_jax.cli.prompts import answer_names
    from tulu_jax.console import write_verbatim

    names = answer_names(args.answer_field)

    with _sink(args.output) as partial, _progress(len(rows)) as advance:

        def finish(index: int, answer: Completion) -> None:
            found = (answer.text, len(answer.tokens), answer.stop_reason)
            rows[index] |= dict(zip(names, found, strict=True))
            if partial is not None:
                partial.write(_line(rows[index]))
                partial.flush()
            advance(len(answer.tokens))

        answers = engine.run(requests, on_done=finish)
        if partial is not None:  # now in their order
            partial.seek(0)
            partial.truncate()
            partial.writelines(map(_line, rows))
    if args.output is None:
        for row in rows:
            write_verbatim(row[names[0]])
    else:
        _partial(args.output).replace(args.output)
    return answers


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def checked_sampling(args: argparse.Namespace) -> Sampling:
    """How tokens are drawn; says so where a setting will do nothing.

    Raises:
      ConfigError: a number is outside its range.
    """
    from tulu_jax.console import WARNING, plain_console, print_line
    from tulu_jax.generate import Sampling

    sampling = Sampling(args.temperature, args.top_p, args.top_k)
    if sampling.temperature == 0 and (sampling.top_p, sampling.top_k, args.seed) != (1.0, 0, 0):
        note = "note --top_p, --top_k and --seed do nothing without --temperature"
        print_line(plain_console(stderr=True), note, WARNING)
    return sampling


class OpenedModel(NamedTuple):
    """A model that is known but for its weights."""

    reader: Any
    config: ModelConfig
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]
    max_length: int

    def check(self, requests: Sequence[Request], names: Sequence[str]) -> None:
        """Refuses requests that cannot be done, before weights are read.

        Raises:
          DataError: see `Engine.run`.
        """
        from tulu_jax.generate.requests import check_request

        for request, at in zip(requests, names, strict=True):
            check_request(
                request,
                at,
                vocab_size=self.config.vocab_size,
                max_length=self.max_length,
                has_tokenizer=True,
            )


def open_model(args: argparse.Namespace) -> OpenedModel:
    """The model and tokenizer that `--model` names, with what there is to say about them.

    Raises:
      CheckpointError: neither a Hugging Face folder nor a run folder, or a damaged one.
      ConfigError: no tokenizer, or a length that the model cannot have.
    """
    from tulu_jax.checkpoint.hf.generation import all_stops
    from tulu_jax.cli.exporter import find_tokenizer
    from tulu_jax.console import WARNING, plain_console, print_line
    from tulu_jax.generate.sizes import check_length

    reader, config, meta, kept = _open_model(args)
    tokenizer = find_tokenizer(args.model, args.tokenizer, meta, chat_template=args.chat_template)
    assert tokenizer is not None  # "none" is a path here
    if tokenizer.template.name != "tulu":
        print_line(plain_console(stderr=True), f"Chat template: {tokenizer.template.name}")
    for note in [*getattr(reader, "notes", []), *_not_followed(args, kept)]:
        print_line(plain_console(stderr=True), f"note {note}", WARNING)
    stops = dict.fromkeys((*all_stops(config, kept), *tokenizer.stop_ids))
    max_length = args.max_length or config.max_length
    check_length(config, max_length)
    return OpenedModel(reader, config, tokenizer, tuple(stops), max_length)


def make_engine(
    args: argparse.Namespace,
    opened: OpenedModel,
    console: Any,
    *,
    slots: int,
    longest: int | None = None,
) -> Engine:
    """The engine, with weights moved to the device one by one.

    Args:
      args: the command's.
      opened: the model.
      console: to show progress on.
      slots: most requests to run side by side; fewer where memory has no room for them.
      longest: tokens of the longest prompt and answer that will be asked for, if that is known.

    Raises:
      CheckpointError: weights that are no numbers, or damaged.
      ConfigError: model and cache do not fit into the memory.
    """
    from tulu_jax.checkpoint.hf.tensors import all_finite, cast, not_finite, numpy_dtype
    from tulu_jax.console import print_line
    from tulu_jax.generate import Engine
    from tulu_jax.generate.sizes import fit, free_memory
    from tulu_jax.models import ComputeConfig

    config, length = opened.config, opened.max_length
    if longest is not None:
        length = min(length, -(-longest // LENGTH_STEP) * LENGTH_STEP)
    sizes = fit(config, slots=slots, length=length, dtype=args.dtype, free_bytes=free_memory())
    if sizes.slots < slots:
        print_line(console, f"memory has room for {sizes.line()}")

    def read() -> Iterator[tuple[tuple[str, ...], Any]]:
        for name in opened.reader.paths():
            array = cast(opened.reader.read(name), numpy_dtype(args.dtype), "/".join(name))
            if not all_finite(array):
                raise not_finite(array, "/".join(name), args.model)
            yield name, array

    with console.status(f"loading {config.num_params:,} weights"):
        return Engine(
            config,
            read(),
            slots=sizes.slots,
            compute=ComputeConfig(dtype=args.dtype),
            max_length=length,
            stop_ids=opened.stop_ids,
            tokenizer=opened.tokenizer,
        )


def _open_model(args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """What `--model` names: a reader, the config, a run's metadata, and its generation_config."""
    from tulu_jax.checkpoint.hf import open_folder
    from tulu_jax.checkpoint.hf.kinds import no_model
    from tulu_jax.checkpoint.merged import open_weights

    path = Path(args.model)
    if (path / "checkpoints").is_dir():
        run: Any = open_weights(path, args.step, base=args.base)
        return run, run.config, run.meta, run.meta.get("generation") or {}
    if not (path / "config.json").is_file():
        raise no_model(path, expected="a Hugging Face folder (config.json) or a run (checkpoints/)")
    for name in ("step", "base"):
        if (value := getattr(args, name)) is not None:
            raise ConfigError(
                f"--{name} goes with a run folder", got=value, at=path, do="leave it out"
            )
    folder = open_folder(path, args.dtype)
    return folder, folder.config, {}, dict(folder.generation)


def _not_followed(args: argparse.Namespace, kept: dict[str, Any]) -> list[str]:
    """Says what the model's generation_config.json asks for and is not done here."""
    from tulu_jax.checkpoint.hf.generation import asked_for

    found = asked_for(kept, sampled=args.temperature > 0)
    said = ", ".join(f"{name}={value}" for name, value in found.items())
    return [f"generation_config.json asks for {said}: not followed here"] if found else []


def _check_output(args: argparse.Namespace) -> None:
    """Refuses, before anything is loaded, an output that could not be written or is the input."""
    if not args.answer_field.isidentifier():
        raise ConfigError(
            "--answer_field is no name", got=repr(args.answer_field), expected="letters and digits"
        )
    _check_used(args)
    output = args.output
    if output is None:
        return
    for path in (output, _partial(output)):
        if args.input and path.exists() and args.input.exists() and path.samefile(args.input):
            raise ConfigError("output would replace the input", at=path, do="choose another")
    if output.is_dir():
        raise ConfigError("output is a folder", at=output, expected="a file", do="name one in it")
    if not output.parent.is_dir():
        raise ConfigError(
            "output cannot be written", got="no such folder", at=output.parent, do="make it first"
        )
    if output.exists() and not args.overwrite:
        raise ConfigError("output exists", at=output, do="choose another, or add --overwrite")


def _check_used(args: argparse.Namespace) -> None:
    """Refuses flags that would do nothing beside the others."""
    unused = {
        "--chat_template": args.chat_template is not None and args.raw and "without --raw",
        "--drop_last_answer": args.drop_last_answer and not args.input and "with --input",
        "--answer_field": args.answer_field != "output"
        and not (args.input or args.output)
        and "with --input or --output",
        "--overwrite": args.overwrite and args.output is None and "with --output",
    }
    for flag, use in unused.items():
        if use:
            raise ConfigError(f"{flag} does nothing here", expected=f"it {use}", do="leave it out")


def _partial(output: Path) -> Path:
    """Where answers are kept, in the order they come, until all are there."""
    return output.with_name(output.name + ".partial")


@contextmanager
def _sink(output: Path | None) -> Iterator[TextIO | None]:
    """The file of answers so far; after an error it stays if there are any."""
    if output is None:
        yield None
        return
    path = _partial(output)
    try:  # a lone surrogate is written as JSON spells it
        file = path.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(
            "output cannot be written", got=error.strerror or error, at=output, do="choose another"
        ) from error
    try:
        with file:
            yield file
    finally:
        if not path.stat().st_size:
            path.unlink()


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar over prompts with tokens a second, beside the answers' stream; none for one prompt.

    Yields what to call with the tokens of each answer.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from tulu_jax.console import plain_console

    if total == 1:
        yield lambda tokens: None
        return
    rate = TextColumn("{task.fields[stage]}")
    columns = (TextColumn("generating"), BarColumn(), MofNCompleteColumn(), rate, Remaining())
    with Progress(*columns, console=plain_console(stderr=True)) as progress:
        task = progress.add_task("", total=total, stage="")
        start, count = time.perf_counter(), 0

        def advance(tokens: int) -> None:
            nonlocal count
            count += tokens
            rate = count / (time.perf_counter() - start)
            progress.update(task, advance=1, stage=f"{rate:,.0f} tokens/s")

        yield advance
