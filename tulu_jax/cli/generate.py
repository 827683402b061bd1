"""`tulu generate`: answers to one prompt or to a file of them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tulu_jax.cli.engine import add_model_arguments, checked_sampling, make_engine, open_model
from tulu_jax.cli.flags import new_command, path_argument, whole
from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from tulu_jax.generate import Completion, Front, Request, Sampling

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
        args, opened, errors, slots=args.batch_size, longest=longest, requests=len(prompts)
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


def _report(console: Any, engine: Front, answers: list[Completion], seconds: float) -> None:
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
    args: argparse.Namespace, engine: Front, requests: list[Request], rows: list[dict[str, Any]]
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
