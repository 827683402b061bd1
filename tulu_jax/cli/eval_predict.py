"""`python -m eval.predict`: answers to files of prompts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.eval_flags import (
    add_run_flags,
    check_run_flags,
    no_chat,
    notes_on_flags,
    read_quirks,
)
from tulu_jax.cli.flags import number, path_argument, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import PORTION, least

if TYPE_CHECKING:
    from eval.harness.asks import Instance
    from eval.harness.context import Context
    from tulu_jax.cli.prompts import Prompt

OUTPUT = Path("output/model_outputs.jsonl")
OF_BENCHMARKS = ("limit", "ids", "log_format", "allow_code_execution", "allow_unsafe_execution")


def predict(argv: Sequence[str]) -> int:
    """Answers all lines of the input files; the exit status, 1 where some could not be answered."""
    from eval.harness.cache import AnswerCache
    from eval.harness.data import write_jsonl
    from eval.harness.runner import ask_all, fit_all
    from tulu_jax.cli.eval_models import open_answerer
    from tulu_jax.cli.eval_run import longest_of, progress, say
    from tulu_jax.cli.prompts import read_prompts
    from tulu_jax.console import plain_console

    args = _parser().parse_args(argv)
    check_run_flags(args)
    for name in OF_BENCHMARKS:
        if getattr(args, name):
            raise ConfigError("flag is of benchmarks alone", at=f"--{name}", do="leave it out")
    console = plain_console(stderr=True, soft_wrap=True)
    say(console, [*notes_on_flags(args), *_notes(args)])
    lines = [line for file in args.input_files for line in read_prompts(file)]
    answerer = open_answerer(args)
    context = _context(args, answerer)
    instances = _instances(args, lines, context)
    instances, cut = fit_all(instances, answerer.max_length)
    if cut:
        say(console, [f"{len(cut)} prompts were cut at their beginning, first {next(iter(cut))}"])
    kept = args.cache or args.output_file.with_name(args.output_file.name + ".answers")
    with AnswerCache(kept) as cache:
        backend = answerer.backend(longest_of(instances), len(instances))
        with progress("predict", len(instances)) as advance:
            answers = ask_all(
                "predict", instances, backend, cache, lambda a: advance(a.output_tokens or 0)
            )
    rows = []
    for line, answer in zip(lines, answers, strict=True):
        failed = {"error": answer.error} if answer.error else {}
        rows.append({**line.fields, "output": answer.output, **failed})
    write_jsonl(args.output_file, rows)
    failures = sum(answer.error is not None for answer in answers)
    console.print(f"{len(rows) - failures} of {len(rows)} answers -> {args.output_file}")
    return int(failures > 0)


def _notes(args: argparse.Namespace) -> list[str]:
    """What is to be said of flags that do nothing here."""
    notes = []
    if not args.do_sample and (args.temperature, args.top_p) != (1.0, 1.0):
        notes.append("--temperature and --top_p do nothing without --do_sample")
    if args.load_in_float16:
        notes.append(f"--load_in_float16 is not done: weights are {args.dtype} (--dtype)")
    return notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.predict",
        description="Answers to prompts of one's own: lines with id and prompt, or messages.",
    )
    parser.add_argument(
        "--input_files", nargs="+", type=path_argument, required=True, metavar="FILE",
        help="JSON lines with id and prompt, or messages",
    )  # fmt: skip
    parser.add_argument(
        "--output_file", type=path_argument, default=OUTPUT, metavar="FILE",
        help=f"the same lines with output (default {OUTPUT})",
    )  # fmt: skip
    parser.add_argument("--max_new_tokens", type=whole(1), default=2048, help="default 2048")
    parser.add_argument(
        "--do_sample", action="store_true", help="draw tokens, rather than take the likeliest"
    )
    parser.add_argument("--temperature", type=number(least(0)), default=1.0, help="default 1.0")
    parser.add_argument("--top_p", type=number(PORTION), default=1.0, help="default 1.0")
    parser.add_argument("--load_in_float16", action="store_true", help=argparse.SUPPRESS)
    add_run_flags(parser)
    return parser


def _context(args: argparse.Namespace, answerer: Any) -> Context:
    from eval.harness.context import Context
    from eval.harness.quirks import SHARED, Quirks, read_overrides

    read_overrides(args.quirk, [quirk.name for quirk in SHARED])
    wraps = bool(args.chat) and not answerer.endpoint
    if args.chat_formatting_function is not None and not wraps:
        raise no_chat(args.chat_formatting_function)
    return Context(
        Path("."),
        None,
        Quirks(SHARED, args.compat, read_quirks(args)),
        formatter=answerer.formatter(args.chat_formatting_function) if wraps else None,
        tokenizer=answerer.tokenizer,
        endpoint=answerer.endpoint,
        add_bos=args.add_bos,
    )


def _instances(
    args: argparse.Namespace, lines: Sequence[Prompt], context: Context
) -> list[Instance]:
    from eval.harness.asks import Generate, Instance

    prompts = context.prompts([_text(line, context) for line in lines])
    temperature = args.temperature if args.do_sample else 0.0
    return [
        Instance(
            f"{line.at}",
            Generate(prompt, args.max_new_tokens, temperature=temperature, top_p=args.top_p),
            None,
        )
        for line, prompt in zip(lines, prompts, strict=True)
    ]


def _text(line: Prompt, context: Context) -> str:
    """What is asked of a line.

    Raises:
      ConfigError: it has messages, and there is no chat format to write them in.
    """
    messages = line.fields.get("messages")
    if messages is None:
        return context.text(line.fields["prompt"])
    if context.chat:
        return context.conversation(messages)
    if context.endpoint:
        if [message["role"] for message in messages] == ["user"]:
            return messages[0]["content"]
        raise ConfigError(
            "line is a conversation, and an endpoint is asked one question", at=line.at,
            do="send exact prompts: --api completions --use_chat_format",
        )  # fmt: skip
    raise ConfigError(
        "line has messages, which plain text cannot say", at=line.at, do="add --use_chat_format"
    )
