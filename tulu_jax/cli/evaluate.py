"""`tulu eval`: benchmarks on a model, an endpoint, or answers from a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tulu_jax.cli.flags import new_command, path_argument, whole
from tulu_jax.errors import ConfigError

DATA = Path("data/eval")
"""The folder of all benchmarks' data, as open-instruct has it."""
RESULTS = Path("results")

DESCRIPTION = """\
Evaluates a model on benchmarks: the paper's, and those of today.

  tulu eval gsm_cot mmlu_0shot --model DIR      tasks by name
  tulu eval --suite tulu1 --model DIR           the paper's table
  tulu eval list                                all tasks and suites
  tulu eval show gsm_cot --n 1                  prompts, without a model
  tulu eval score RESULTS                       grade saved outputs again
  tulu eval compare A B                         two results, instance by instance
  tulu eval preferences FILES                   stored judgements: win rates and biases
  tulu eval quirks                              what the paper's code did otherwise

What was answered is kept: the same command goes on where it was interrupted."""

EPILOG = "Data: tulu data download --eval. Results: docs/evaluation.md; tables: tulu report."


def add_parser(subparsers: Any) -> None:
    """Adds `tulu eval` to the command line; its own arguments are read by `run`."""
    new_command(
        subparsers, "eval", run, help="evaluate on benchmarks", add_help=False,
        description=DESCRIPTION,
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the part of `tulu eval` that the first word names."""
    words: list[str] = args.overrides
    parts: dict[str, Callable[[Sequence[str]], int]] = {
        "list": _list,
        "show": _show,
        "score": _score,
        "compare": _compare,
        "preferences": _preferences,
        "quirks": _quirks,
    }
    if words and words[0] in parts:
        return parts[words[0]](words[1:])
    return _evaluate(words)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"tulu eval {name}".strip(), description=description, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data_dir", type=path_argument, default=DATA, metavar="DIR",
        help=f"folder of the benchmarks' data, one folder each (default {DATA})",
    )  # fmt: skip


def evaluate_parser() -> argparse.ArgumentParser:
    """What reads `tulu eval TASK...`."""
    from eval.harness.registry import suites
    from tulu_jax.cli.eval_flags import add_option_flag, add_run_flags

    parser = _parser("", DESCRIPTION)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="tasks; see tulu eval list")
    parser.add_argument("--suite", choices=sorted(suites()), help="tasks of this name")
    _add_data(parser)
    parser.add_argument(
        "--save_dir", type=path_argument, default=RESULTS, metavar="DIR",
        help=f"where results go, a folder for each task (default {RESULTS})",
    )  # fmt: skip
    add_option_flag(parser)
    add_run_flags(parser)
    return parser


def _evaluate(words: Sequence[str]) -> int:
    from eval.harness.registry import QUICK, QUICK_LIMIT, find_task, suites
    from tulu_jax.cli.eval_flags import check_options_used, check_run_flags, override_options
    from tulu_jax.cli.eval_run import Wanted, evaluate

    args = evaluate_parser().parse_args(words)
    check_run_flags(args)
    names = list(dict.fromkeys([*args.tasks, *(suites()[args.suite] if args.suite else ())]))
    if not names:
        raise ConfigError("no task to evaluate", expected="TASK... or --suite NAME",
                          do="see tulu eval list")  # fmt: skip
    if args.suite == QUICK and args.limit is None:
        args.limit = QUICK_LIMIT
    check_options_used(args.option, [find_task(name).benchmark.name for name in names])
    wanted = []
    for name in names:
        benchmark, options = find_task(name)
        options = override_options(options, benchmark.name, args.option)
        wanted.append(
            Wanted(name, benchmark, options, args.data_dir / benchmark.data, args.save_dir / name)
        )
    return evaluate(args, wanted, args.save_dir)


def run_benchmark(name: str, argv: Sequence[str] | None = None) -> int:
    """`python -m eval.<name>.run_eval`, with open-instruct's flags; the exit status."""
    from eval.harness.registry import find_benchmark
    from tulu_jax.cli.main import guarded

    benchmark = find_benchmark(name)
    argv = sys.argv[1:] if argv is None else argv
    return guarded(f"eval.{name}.run_eval", lambda: _run_one(benchmark, argv))


def run_predict(argv: Sequence[str] | None = None) -> int:
    """`python -m eval.predict`; the exit status."""
    from tulu_jax.cli.eval_predict import predict
    from tulu_jax.cli.main import guarded

    argv = sys.argv[1:] if argv is None else argv
    return guarded("eval.predict", lambda: predict(argv))


def _run_one(benchmark: Any, argv: Sequence[str]) -> int:
    from tulu_jax.cli.eval_flags import add_options, add_run_flags, check_run_flags, read_options
    from tulu_jax.cli.eval_run import Wanted, evaluate

    parser = argparse.ArgumentParser(
        prog=f"python -m eval.{benchmark.name}.run_eval", description=benchmark.title,
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
    )  # fmt: skip
    parser.add_argument(
        benchmark.data_flag, dest="data", type=path_argument, default=DATA / benchmark.data,
        metavar="PATH", help=f"the benchmark's data (default {DATA / benchmark.data})",
    )  # fmt: skip
    parser.add_argument(
        "--save_dir", type=path_argument, default=RESULTS / benchmark.name, metavar="DIR",
        help=f"where results go (default {RESULTS / benchmark.name})",
    )  # fmt: skip
    add_options(parser.add_argument_group("the benchmark"), benchmark.options)
    add_run_flags(parser)
    args = parser.parse_args(argv)
    check_run_flags(args)
    if args.chat is None:
        args.chat = False  # here it is asked for by --use_chat_format
    options = read_options(args, benchmark.options)
    name = benchmark.task_of(options)
    return evaluate(
        args, [Wanted(name, benchmark, options, args.data, args.save_dir)], args.save_dir
    )


def _list(words: Sequence[str]) -> int:
    from eval.harness.registry import benchmarks, suites
    from tulu_jax.console import plain_console

    _parser("list", "Lists all tasks and suites.").parse_args(words)
    console = plain_console(soft_wrap=True)
    for benchmark in benchmarks().values():
        console.print(f"{benchmark.name}  {benchmark.title}")
        for name, options in benchmark.tasks.items():
            said = " ".join(f"{key}={value}" for key, value in options.items())
            console.print(f"  {name:26} {said}".rstrip())
    for name, members in suites().items():
        console.print(f"suite {name}: {' '.join(members)}")
    return 0


def show_parser() -> argparse.ArgumentParser:
    """What reads `tulu eval show`."""
    from tulu_jax.cli.eval_flags import add_option_flag, add_run_flags

    parser = _parser("show", "Shows prompts as the model reads them; no model is needed.")
    parser.add_argument("task", metavar="TASK")
    parser.add_argument("--n", type=whole(1), default=1, help="so many prompts (default 1)")
    _add_data(parser)
    add_option_flag(parser)
    add_run_flags(parser)
    return parser


def _show(words: Sequence[str]) -> int:
    from eval.harness.registry import find_task
    from tulu_jax.cli.eval_flags import check_options_used, override_options
    from tulu_jax.cli.eval_run import show

    args = show_parser().parse_args(words)
    benchmark, options = find_task(args.task)
    check_options_used(args.option, [benchmark.name])
    options = override_options(options, benchmark.name, args.option)
    return show(args, args.task, benchmark, options, args.data_dir / benchmark.data)


def score_parser() -> argparse.ArgumentParser:
    """What reads `tulu eval score`."""
    from tulu_jax.cli.eval_flags import add_option_flag

    parser = _parser("score", "Grades saved outputs again, without a model.")
    parser.add_argument("folders", nargs="+", type=path_argument, metavar="RESULTS")
    parser.add_argument("--compat", choices=("paper", "fixed"), help="default: as it was run")
    parser.add_argument("--quirk", action="append", default=[], metavar="NAME=paper|fixed")
    add_option_flag(parser)
    parser.add_argument("--allow_code_execution", action="store_true", help="run programs again")
    parser.add_argument("--allow_unsafe_execution", action="store_true")
    return parser


def _score(words: Sequence[str]) -> int:
    from tulu_jax.cli.eval_score import score

    return score(score_parser().parse_args(words))


def _compare(words: Sequence[str]) -> int:
    from tulu_jax.cli import eval_compare

    parser = _parser("compare", eval_compare.DESCRIPTION)
    eval_compare.add_arguments(parser)
    return eval_compare.run(parser.parse_args(words))


def preferences_parser() -> argparse.ArgumentParser:
    """What reads `tulu eval preferences`."""
    from tulu_jax.cli import eval_preferences

    parser = _parser("preferences", eval_preferences.DESCRIPTION)
    eval_preferences.add_arguments(parser)
    return parser


def _preferences(words: Sequence[str]) -> int:
    from tulu_jax.cli import eval_preferences

    return eval_preferences.run(preferences_parser().parse_args(words))


def _quirks(words: Sequence[str]) -> int:
    from eval.harness.registry import all_quirks
    from tulu_jax.console import plain_console, write_verbatim

    parser = _parser("quirks", "Lists what the paper's evaluation code did otherwise.")
    parser.add_argument("--markdown", action="store_true", help="as a table of Markdown")
    if parser.parse_args(words).markdown:
        write_verbatim("| quirk | of | paper | fixed |\n|---|---|---|---|")
        for name, (benchmark, quirk) in all_quirks().items():
            cells = (f"`{name}`: {quirk.line}", benchmark, quirk.paper, quirk.fixed)
            plain = [cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells]
            write_verbatim(f"| {' | '.join(plain)} |")
        return 0
    console = plain_console(soft_wrap=True)
    for name, (benchmark, quirk) in all_quirks().items():
        console.print(f"{name} ({benchmark}): {quirk.line}")
        console.print(f"  paper  {quirk.paper}")
        console.print(f"  fixed  {quirk.fixed}")
    return 0
