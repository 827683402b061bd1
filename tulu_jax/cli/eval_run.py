"""A run of `tulu eval`: who answers, all tasks' questions, results."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tulu_jax.cli import report
from tulu_jax.cli.eval_flags import no_chat, notes_on_flags, read_quirks
from tulu_jax.cli.eval_judges import Judges
from tulu_jax.cli.eval_models import Answerer, open_answerer

if TYPE_CHECKING:
    from eval.harness.asks import Instance
    from eval.harness.benchmark import Benchmark
    from eval.harness.context import Context
    from eval.harness.runner import Result, Task

CACHE = "answers.jsonl"


class Wanted(NamedTuple):
    """A task that is to be run."""

    name: str
    benchmark: Benchmark
    options: Any
    data: Path
    folder: Path


def evaluate(args: argparse.Namespace, wanted: Sequence[Wanted], save_dir: Path) -> int:
    """Runs tasks and prints a table; the exit status, 1 where instances failed.

    Every task's questions are read and checked before a model is loaded.
    """
    from eval.harness.cache import AnswerCache
    from tulu_jax.console import plain_console

    console = plain_console(stderr=True, soft_wrap=True)
    judges = any(one.benchmark.judges(one.options) for one in wanted)
    say(console, notes_on_flags(args, judges))
    answerer = open_answerer(args)
    with ExitStack() as stack:
        cache = stack.enter_context(AnswerCache(args.cache or save_dir / CACHE))
        tasks = [_load(args, one, answerer, console) for one in wanted]
        for task in tasks:
            task.context.extras["judge"] = Judges(
                args, cache, lambda line, name=task.name: console.print(f"{name}: {line}")
            )
        model = answerer.description()
        for one in wanted:
            say(console, _replaced(args, one, model), one.name)
        instances = [instance for task in tasks for instance in task.instances]
        backend = answerer.backend(longest_of(instances), len(instances))
        results = []
        for task, one in zip(tasks, wanted, strict=True):
            start = time.perf_counter()
            result = _run(task, backend, cache, console)
            seconds = time.perf_counter() - start
            say(console, result.run["warnings"], task.name)
            result.run["notes"] = task.lasting
            finish(args, one, task.context, result, model, task.notes, seconds)
            results.append(result)
    if len(results) == 1:
        print_table(results)
    else:
        report.print_tables([one.folder for one in wanted])
    failures = sum(result.failures for result in results)
    if failures:
        console.print(f"{failures} instances failed and are in no metric: run it again to ask them")
    return int(failures > 0)


def _replaced(args: argparse.Namespace, one: Wanted, model: dict[str, Any]) -> list[str]:
    """A note where the folder has results of another model or state of it, or of other settings."""
    from tulu_jax.files import json_or_none

    found = json_or_none(one.folder / "run.json")
    before = found.get("model") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(before, dict):
        return []
    said = []
    if any(before.get(key) != model.get(key) for key in ("name", "path", "fingerprint")):
        moved = before.get("path") and before.get("path") != model.get("path")
        who = before.get("path" if moved or before.get("name") == model.get("name") else "name")
        said.append(f"{who}, or of another step or setting of it,")
    mine = {**dataclasses.asdict(one.options), "compat": args.compat, "limit": args.limit}
    mine = json.loads(json.dumps(mine))  # tuples are lists in the file
    theirs = {**dict(found.get("settings") or {}), **{k: found.get(k) for k in ("compat", "limit")}}
    if args.limit is None:  # a result of more instances is a better one
        theirs["limit"] = None
    other = [name for name in mine if name in theirs and theirs[name] != mine[name]]
    if other:
        said.append(f"another {', '.join(other)}")
    return [
        f"results of {' and of '.join(said)} are in {one.folder} and are replaced: give another "
        "--save_dir to keep both"
    ] * bool(said)


def _load(args: argparse.Namespace, one: Wanted, answerer: Answerer, console: Any) -> Task:
    from eval.harness import guards
    from eval.harness.runner import fit_all, load_task

    context = make_context(args, one.benchmark, one.options, one.data, answerer)
    one.benchmark.check(context)
    with console.status(f"reading {one.name}"):
        task = load_task(one.name, one.benchmark, context, limit=args.limit, ids=args.ids)
        task.instances, task.cut = fit_all(task.instances, answerer.max_length)
    of_format = guards.check_format(context, model_chats=answerer.chats, chats=one.benchmark.chats)
    task.notes += of_format
    task.lasting += of_format
    if args.chat_formatting_function is not None and not context.chat:
        task.notes.append("asked without chat format: --chat_formatting_function is not used")
    say(console, task.notes, one.name)
    return task


def make_context(
    args: argparse.Namespace, benchmark: Benchmark, options: Any, data: Path, answerer: Answerer
) -> Context:
    """The setting that the flags ask for.

    Raises:
      ConfigError: an unknown quirk, or a chat format that cannot be had.
    """
    from eval.harness.context import Context
    from eval.harness.quirks import Quirks

    chat = args.chat if args.chat is not None else bool(answerer.chats and benchmark.chats)
    wraps = chat and not answerer.endpoint
    if args.chat_formatting_function is not None and not wraps and benchmark.chats:
        raise no_chat(args.chat_formatting_function)
    return Context(
        data_dir=data,
        options=options,
        quirks=Quirks(benchmark.quirks, args.compat, read_quirks(args)),
        formatter=answerer.formatter(args.chat_formatting_function) if wraps else None,
        tokenizer=answerer.tokenizer,
        endpoint=answerer.endpoint,
        add_bos=args.add_bos,
        max_length=answerer.max_length,
        seed=args.seed,
        allow_code=args.allow_code_execution,
        allow_unsafe=args.allow_unsafe_execution,
        extras={"model": str(args.model or args.engine or args.replay)},
    )


def longest_of(instances: Iterable[Instance]) -> int:
    """Tokens of the longest prompt and answer together."""
    from eval.harness.asks import Generate, Weigh

    longest = 1
    for instance in instances:
        ask = instance.ask
        size = len(ask.prompt.ids or ())
        if isinstance(ask, Generate):
            size += ask.max_new_tokens
        elif isinstance(ask, Weigh):
            size = max((len(a) + len(b) for a, b in ask.pairs), default=0)
        longest = max(longest, size + 1)
    return longest


def _run(task: Task, backend: Any, cache: Any, console: Any) -> Result:
    from eval.harness.endpoint import EndpointBackend
    from eval.harness.runner import ask_all, grade, rows_of

    if isinstance(backend, EndpointBackend):
        keys = [instance.ask.key(backend.fingerprint) for instance in task.instances]
        kept = sum(cache.get(key) is not None for key in keys)
        say(console, _of_earlier(kept, len(keys), cache.path), task.name)
    with progress(task.name, len(task.instances)) as advance:
        answers = ask_all(
            task.name, task.instances, backend, cache, lambda done: advance(done.output_tokens or 0)
        )
    with console.status(f"grading {task.name}"):
        return grade(task.name, task.benchmark, task.context, rows_of(task, answers))


def _of_earlier(kept: int, count: int, path: Path | None) -> list[str]:
    """A note where an endpoint is not asked again, of which nobody knows what it serves today."""
    return [
        f"{kept} of {count} answers were kept from an earlier run, of whatever the endpoint served "
        f"by this name then: for another model give another --save_dir, or remove {path}"
    ] * bool(kept)


def finish(
    args: argparse.Namespace, one: Wanted, context: Context, result: Result,
    model: dict[str, Any], notes: Sequence[str], seconds: float,
) -> None:  # fmt: skip
    """Completes `run.json` and writes the result folder."""
    from eval.harness.fingerprint import data_sha256
    from eval.harness.runner import write_result

    tokens = sum(row.get("output_tokens") or 0 for row in result.rows)
    result.run.update(
        model=model,
        endpoint=context.endpoint,
        compat=args.compat,
        data=str(one.data),
        data_sha256=data_sha256(one.data),
        command=sys.argv,
        versions=_versions(),
        time={
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 2),
            "output_tokens_per_s": round(tokens / seconds, 1) if seconds else None,
        },
        limit=args.limit,
        seed=args.seed,
        warnings=[*notes, *result.run["warnings"]],
    )
    write_result(result, one.benchmark, context, one.folder)
    if args.log_format is not None:
        from eval.harness.inspect_log import write_inspect_log

        write_inspect_log(result, one.folder)


def _versions() -> dict[str, str]:
    import platform
    from importlib import metadata

    from tulu_jax import __version__

    found = {"tulu_jax": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in ("jax", "flax", "numpy")}


def say(console: Any, notes: Sequence[str], task: str = "") -> None:
    """Prints notes, a line each."""
    from tulu_jax.console import WARNING, print_line

    for note in notes:
        print_line(console, f"note {task + ': ' if task else ''}{note}", WARNING)


def print_table(results: Sequence[Result]) -> None:
    """Prints a line a task: the number that counts, with its error and n."""
    from rich.table import Table

    from tulu_jax.console import plain_console

    table = Table("task", "metric", "value", "± stderr", "n")
    for result in results:
        run = result.run
        scale = 100 if run["unit"] == "share" else 1
        cells = ["-" if run[k] is None else f"{scale * run[k]:.1f}" for k in ("value", "stderr")]
        table.add_row(run["task"], run["metric"], *cells, str(run["n"]))
    plain_console().print(table)


@contextmanager
def progress(name: str, total: int) -> Iterator[Any]:
    """A bar over instances with tokens a second; yields what to call with an answer's tokens."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from tulu_jax.console import plain_console, task_name

    rate = TextColumn("{task.fields[stage]}")
    columns = (task_name(), BarColumn(), MofNCompleteColumn(), rate)
    with Progress(*columns, Remaining(), console=plain_console(stderr=True)) as progress:
        task = progress.add_task(name, total=total, stage="")
        start, count = time.perf_counter(), 0

        def advance(tokens: int) -> None:
            nonlocal count
            count += tokens
            said = f"{count / (time.perf_counter() - start):,.0f} tokens/s" if count else ""
            progress.update(task, advance=1, stage=said)

        yield advance


def show(
    args: argparse.Namespace, name: str, benchmark: Benchmark, options: Any, data: Path
) -> int:
    """Prints the first prompts of a task with their tokens; needs a tokenizer at most."""
    from eval.harness.runner import load_task
    from tulu_jax.cli.eval_models import only_tokenizer
    from tulu_jax.console import visible, write_verbatim

    answerer = only_tokenizer(args)
    context = make_context(args, benchmark, options, data, answerer)
    task = load_task(name, benchmark, context, limit=None, ids=args.ids)
    for instance in task.instances[: args.n]:
        prompt = instance.ask.prompt
        write_verbatim(f"== {instance.id}  gold {instance.gold!r}")
        write_verbatim(visible(prompt.text))
        if prompt.ids is not None and context.tokenizer is not None:
            pieces = (f"{context.tokenizer.piece(token)}:{token}" for token in prompt.ids)
            write_verbatim(f"-- {len(prompt.ids)} tokens: {' '.join(pieces)}")
        asked = {
            field.name: getattr(instance.ask, field.name)
            for field in dataclasses.fields(instance.ask)
            if field.name not in ("prompt", "pairs")
        }
        write_verbatim(f"-- {type(instance.ask).__name__} {asked}")
    return 0
