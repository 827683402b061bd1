"""Flags of `tulu eval` and of `python -m eval.<benchmark>.run_eval`.

The latter have open-instruct's names and defaults; both mean the same here.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from tulu_jax.cli.engine import add_device_arguments
from tulu_jax.cli.flags import model_argument, path_argument, whole
from tulu_jax.errors import ConfigError
from tulu_jax.fields import LARGEST

if TYPE_CHECKING:
    from eval.harness.quirks import Mode

SLOTS = 16
"""Instances that run side by side, where nobody says."""
CONCURRENCY, MOST_REQUESTS = 8, 1000
"""Requests to an endpoint at once, where nobody says, and at most."""
DTYPE = "float32"


ENDPOINT_FLAGS = ("base_url", "concurrency", "requests_per_minute")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what every evaluation takes: who answers, how it is asked, and how it is scored."""
    _add_model(parser)
    _add_others(parser)
    _add_format(parser)
    _add_running(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a model of ours")
    group.add_argument(
        "--model", "--model_name_or_path", dest="model", type=model_argument, metavar="PATH",
        help="Hugging Face or run folder",
    )  # fmt: skip
    group.add_argument(
        "--tokenizer", "--tokenizer_name_or_path", dest="tokenizer", type=model_argument,
        metavar="PATH", help="tokenizer (default: the model's own)",
    )  # fmt: skip
    group.add_argument("--step", type=int, help="checkpoint of a run folder (default: newest)")
    group.add_argument(
        "--base", type=model_argument, metavar="DIR", help="where the base of a run's adapters lies"
    )
    group.add_argument(
        "--dtype", default=DTYPE, choices=("float32", "bfloat16"), help="dtype of computation"
    )
    group.add_argument(
        "--max_length", type=whole(2), metavar="N",
        help="longest prompt and answer together (default: the model's; more where its positions "
        "are rotary)",
    )  # fmt: skip
    group.add_argument(
        "--batch_size", "--eval_batch_size", dest="batch_size", type=whole(1), metavar="N",
        help=f"instances side by side (default {SLOTS}; fewer where memory ends)",
    )  # fmt: skip
    add_device_arguments(group)
    group.add_argument("--load_in_8bit", action="store_true", help=argparse.SUPPRESS)
    group.add_argument("--gptq", action="store_true", help=argparse.SUPPRESS)
    group.add_argument("--use_vllm", action="store_true", help=argparse.SUPPRESS)
    group.add_argument(
        "--use_slow_tokenizer", action="store_true", help="the same as --quirk slow_tokenizer=paper"
    )


def _add_others(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("or somebody else")
    group.add_argument(
        "--engine", "--openai_engine", dest="engine", metavar="NAME",
        help="model of an OpenAI-compatible endpoint; its key stands in OPENAI_API_KEY",
    )  # fmt: skip
    group.add_argument(
        "--base_url", metavar="URL",
        help="the endpoint (default: OPENAI_BASE_URL, or OpenAI's own)",
    )  # fmt: skip
    group.add_argument(
        "--api", choices=("chat", "completions"), default="chat",
        help="how the endpoint is asked: by messages (default), or with the exact prompt",
    )  # fmt: skip
    group.add_argument(
        "--concurrency", type=whole(1, MOST_REQUESTS), metavar="N",
        help=f"requests to the endpoint at once (default --batch_size, else {CONCURRENCY})",
    )  # fmt: skip
    group.add_argument(
        "--requests_per_minute", type=whole(1), metavar="N", help="most requests a minute"
    )
    group.add_argument(
        "--replay", type=path_argument, metavar="FILE",
        help="answers from a file of JSON lines with prompt (or prompt_sha256) and output",
    )  # fmt: skip


def _add_format(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is asked")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--use_chat_format", action="store_true", default=None, dest="chat",
        help="ask in chat format (tulu eval: the default for models that have one)",
    )  # fmt: skip
    which.add_argument(
        "--no_chat_format", action="store_false", dest="chat", help="ask in plain text"
    )
    group.add_argument(
        "--chat_formatting_function", metavar="MODULE.FUNCTION",
        help="writes the chat format (default: the model's own template)",
    )  # fmt: skip
    group.add_argument(
        "--add_bos", choices=("auto", "true", "false"), default="auto",
        help="BOS before every prompt (default: as the tokenizer does)",
    )  # fmt: skip
    group.add_argument(
        "--compat", choices=("paper", "fixed"), default="fixed",
        help="the reference's behaviour with all its quirks, or what is right (default)",
    )  # fmt: skip
    group.add_argument(
        "--quirk", action="append", default=[], metavar="NAME=paper|fixed",
        help="one quirk otherwise than --compat says; see tulu eval quirks; repeatable",
    )  # fmt: skip


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--limit", type=whole(1), metavar="N", help="at most so many instances of each task"
    )
    group.add_argument("--ids", nargs="+", default=[], metavar="ID", help="only these instances")
    group.add_argument(
        "--seed", type=whole(0, LARGEST), default=0, help="of sampled outputs (default 0)"
    )
    group.add_argument(
        "--cache", type=path_argument, metavar="FILE",
        help="where answers are kept (default: answers.jsonl in the folder of results)",
    )  # fmt: skip
    group.add_argument(
        "--log_format", choices=("inspect",),
        help="write a log that `inspect view` opens, too (extra inspect)",
    )  # fmt: skip
    group.add_argument(
        "--allow_code_execution", action="store_true",
        help="run programs that the model wrote, in a sandbox (Codex-Eval)",
    )  # fmt: skip
    group.add_argument(
        "--allow_unsafe_execution", action="store_true",
        help="run them without a sandbox where the kernel gives none",
    )  # fmt: skip


def add_option_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--option`, by which tasks are asked for by name and yet have settings of their own."""
    parser.add_argument(
        "--option", action="append", default=[], metavar="BENCHMARK.NAME=VALUE",
        help="a setting of a benchmark otherwise than its task has it, such as "
        "toxigen.classifier=DIR; repeatable",
    )  # fmt: skip


def check_run_flags(args: argparse.Namespace) -> None:
    """Refuses flags that cannot be followed, or that leave open who answers.

    Raises:
      ConfigError: see above.
    """
    if args.log_format is not None:
        from eval.harness.inspect_log import check_installed

        check_installed()
    if args.gptq:
        raise ConfigError(
            "GPTQ models cannot be loaded", at="--gptq",
            do="evaluate the model it was made from, or serve it and give --base_url",
        )  # fmt: skip
    given = [name for name in ("model", "engine", "replay") if getattr(args, name) is not None]
    if len(given) != 1:
        raise ConfigError(
            "who answers is not clear", got=", ".join(f"--{name}" for name in given) or "nobody",
            expected="one of --model, --engine and --replay",
        )  # fmt: skip
    if args.model is None:
        _refuse_of_models(args)
    if args.engine is not None and args.api == "chat":
        _refuse_of_text(args)


def _refuse_of_models(args: argparse.Namespace) -> None:
    """Refuses what only a model of ours follows, or nobody whose tokens are not known."""
    of_models = {"step": args.step, "base": args.base}
    of_tokens = {
        "tokenizer": args.tokenizer,
        "add_bos": None if args.add_bos == "auto" else args.add_bos,
        "use_slow_tokenizer": "it" if args.use_slow_tokenizer else None,
    }
    if args.replay is not None and args.tokenizer is not None:
        of_tokens = {}
    for name, value in (of_models | of_tokens).items():
        if value is not None:
            tokens = ", or with --replay and --tokenizer" if name in of_tokens else ""
            raise ConfigError(f"--{name} goes with --model{tokens}", got=value, do="leave it out")


def _refuse_of_text(args: argparse.Namespace) -> None:
    """Refuses formats where an endpoint is asked by messages, which it writes as text itself."""
    named = args.chat_formatting_function
    flag = "--chat_formatting_function" if named is not None else "--no_chat_format"
    if named is not None or args.chat is False:
        raise ConfigError(
            f"{flag} cannot be followed: the endpoint writes messages as text itself",
            got=named, do="leave it out, or ask with exact prompts: --api completions",
        )  # fmt: skip


def no_chat(function: str) -> ConfigError:
    """The error of a chat format that nothing would be asked in."""
    return ConfigError(
        "--chat_formatting_function without chat format changes nothing", got=function,
        do="add --use_chat_format, or leave it out",
    )  # fmt: skip


def notes_on_flags(args: argparse.Namespace, judges: bool = False) -> list[str]:
    """What is to be said of flags that do nothing here.

    Args:
      args: the flags.
      judges: whether a judge is named, who may be an endpoint.
    """
    notes = []
    if args.load_in_8bit:
        notes.append(
            f"--load_in_8bit is not done: weights are {args.dtype}, which is more exact; "
            "--quantize int8 rounds them"
        )
    if args.use_vllm:
        notes.append("--use_vllm does nothing here: the engine is our own")
    idle = [name for name in ENDPOINT_FLAGS if getattr(args, name) is not None]
    if args.engine is None and not judges and idle:
        notes.append(f"{_flags(idle)}: nothing is asked of an endpoint (--engine)")
    idle = [
        name for name in ("max_length", "tensor", "replicas") if getattr(args, name) is not None
    ]
    idle += ["dtype"] * (args.dtype != DTYPE) + ["quantize"] * (args.quantize != "none")
    if args.model is None and not judges and idle:
        notes.append(f"{_flags(idle)}: nothing is asked of a model of ours (--model)")
    return notes


def _flags(names: Sequence[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def read_quirks(args: argparse.Namespace) -> dict[str, Mode]:
    """The quirks that the flags name, `--use_slow_tokenizer` among them.

    Raises:
      ConfigError: an unknown one, or two flags that contradict each other.
    """
    from eval.harness.quirks import read_overrides
    from eval.harness.registry import all_quirks

    found = read_overrides(args.quirk, all_quirks())
    if args.use_slow_tokenizer and found.setdefault("slow_tokenizer", "paper") == "fixed":
        raise ConfigError(
            "flags contradict each other",
            got="--use_slow_tokenizer and --quirk slow_tokenizer=fixed",
            do="leave one out",
        )
    return found


def add_options(parser: Any, options: type) -> None:
    """Adds a flag for every field of a benchmark's options."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kind, many = _kind(hints[field.name])
        text = field.metadata.get("help") or ""
        if kind is bool:
            parser.add_argument(f"--{field.name}", action="store_true", help=text)
            continue
        default = field.default
        said = "" if default in (None, ()) else f" (default {_words(default)})"
        extra: dict[str, Any] = {"nargs": "*"} if many else {}
        parser.add_argument(
            f"--{field.name}", type=kind, default=default, help=text + said, **extra
        )


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of a field's values, and whether it takes several."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    if typing.get_origin(hint) is typing.Literal:
        return str, False
    return hint, False


def read_options(args: argparse.Namespace, options: type) -> Any:
    """The options that the flags say.

    Raises:
      ConfigError: one is out of its range.
    """
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(options)}
    return options(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def override_options(options: Any, benchmark: str, texts: Sequence[str]) -> Any:
    """The options with what `--option` says of this benchmark.

    Raises:
      ConfigError: no such benchmark or setting, or a value that it cannot have.
    """
    from eval.harness.registry import find_benchmark

    hints = typing.get_type_hints(type(options))
    values = {}
    for text in texts:
        place, mark, value = text.partition("=")
        name, _, field = place.partition(".")
        known = [one.name for one in dataclasses.fields(find_benchmark(name).options)]
        if not mark or field not in known:
            raise ConfigError(
                "unknown setting of a benchmark", got=repr(text), at="--option",
                expected=" or ".join(f"{name}.{one}=..." for one in known) or "none: it has none",
            )  # fmt: skip
        if name == benchmark:
            values[field] = _value(hints[field], value, f"--option {place}")
    return dataclasses.replace(options, **values)


def check_options_used(texts: Sequence[str], benchmarks: Collection[str]) -> None:
    """Passes where each `--option` is of one of these benchmarks.

    Raises:
      ConfigError: it is of another, and would do nothing; or of none.
    """
    from eval.harness.registry import find_benchmark

    for text in texts:
        name = find_benchmark(text.partition("=")[0].partition(".")[0]).name
        if name not in benchmarks:
            raise ConfigError(
                "option is of a benchmark that is not asked", got=repr(text), at="--option",
                expected=" or ".join(f"{one}.NAME=VALUE" for one in dict.fromkeys(benchmarks)),
                do=f"leave it out, or name a task of {name}: tulu eval list",
            )  # fmt: skip


def _value(hint: Any, text: str, at: str) -> Any:
    """What a text says, for a field of this type."""
    kind, many = _kind(hint)
    if text == "none" and types.NoneType in typing.get_args(hint):
        return None
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return tuple(map(kind, text.split(","))) if many else kind(text)
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(
            "value cannot be read", got=repr(text), at=at, expected=words.get(kind)
        ) from None
