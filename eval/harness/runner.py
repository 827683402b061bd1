"""A task from its data to its result folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.harness import guards
from eval.harness.asks import Answer, Generate, Instance
from eval.harness.backends import Backend, fit
from eval.harness.benchmark import Benchmark, Row
from eval.harness.cache import AnswerCache, ask_kept
from eval.harness.context import Context
from eval.harness.data import RESULT, read_jsonl, write_jsonl
from tulu_jax.errors import ConfigError
from tulu_jax.files import json_or_none, sha256, write_json

INSPECT_LOG = "inspect.eval"
"""Of a result, for inspect_ai's viewer; whoever wants it writes it after the result."""


@dataclasses.dataclass
class Task:
    """A benchmark with its options on one model, its instances loaded."""

    name: str
    benchmark: Benchmark
    context: Context
    instances: list[Instance]
    notes: list[str]
    lasting: list[str] = dataclasses.field(default_factory=list)
    """Those of the notes that are about what is asked: they hold however answers are graded."""
    cut: dict[str, int] = dataclasses.field(default_factory=dict)
    """Tokens cut off a prompt, by instance, where it was too long."""


def load_task(
    name: str, benchmark: Benchmark, context: Context, *, limit: int | None = None,
    ids: Sequence[str] = (),
) -> Task:  # fmt: skip
    """The task with its instances, checked.

    Args:
      name: of the task.
      benchmark: what it is of.
      context: the setting.
      limit: at most so many instances, the same ones whatever else is chosen.
      ids: only these instances.

    Raises:
      ConfigError: an id that is none.
      DataError, GuardError: see `Benchmark.load` and `guards.check_prompts`.
    """
    instances = benchmark.load(context)
    if ids:
        unknown = sorted(set(ids) - {instance.id for instance in instances})
        if unknown:
            raise ConfigError(
                "no such instance", got=unknown[:4], at=f"--ids of {name}",
                expected=f"such as {instances[0].id}",
            )  # fmt: skip
        instances = [instance for instance in instances if instance.id in set(ids)]
    notes = guards.check_data(benchmark, context.data_dir)
    notes += guards.check_prompts(instances, context)
    instances = limited(instances, limit)
    mine = benchmark.notes(instances, context)
    return Task(name, benchmark, context, instances, [*notes, *mine], notes)


def limited(instances: Sequence[Instance], limit: int | None) -> list[Instance]:
    """At most `limit` instances, in order: those whose ids have the smallest hashes.

    So a smaller limit takes some of those that a larger one takes, in every task. Of samples, the
    first one of many problems comes before the second of any.
    """
    if limit is None or limit >= len(instances):
        return list(instances)

    def rank(instance: Instance) -> tuple[int, str]:
        sample = instance.ask.sample if isinstance(instance.ask, Generate) else 0
        return sample, sha256(instance.id.partition("#")[0])

    ranked = sorted(instances, key=rank)
    kept = {instance.id for instance in ranked[:limit]}
    return [instance for instance in instances if instance.id in kept]


def fit_all(
    instances: Sequence[Instance], max_length: int | None
) -> tuple[list[Instance], dict[str, int]]:
    """The instances with prompts that the model has room for, and the tokens that were cut off."""
    fitting, lost = [], {}
    for instance in instances:
        ask, cut = (instance.ask, 0) if max_length is None else fit(instance.ask, max_length)
        if cut:
            lost[instance.id] = cut
            instance = dataclasses.replace(instance, ask=ask)
        fitting.append(instance)
    return fitting, lost


def ask_all(
    name: str,
    instances: Sequence[Instance],
    backend: Backend,
    cache: AnswerCache,
    on_answer: Callable[[Answer], None] = lambda _: None,
) -> list[Answer]:
    """The answer to every instance; what the cache has is not asked, and equal asks only once.

    Raises:
      ConfigError: the backend cannot answer such a question.
    """
    for instance in instances:
        if not guards.can_answer(instance, backend.can):
            raise ConfigError(
                f"task {name} asks what this model cannot tell",
                got="log-probabilities of given text",
                expected=f"a backend that can {type(instance.ask).__name__.lower()}",
                do="evaluate a folder (--model), or leave the task out",
            )
    return ask_kept([instance.ask for instance in instances], backend, cache, on_answer)


def rows_of(task: Task, answers: Sequence[Answer]) -> list[Row]:
    """Rows of predictions.jsonl before they are graded."""
    rows = []
    for instance, answer in zip(task.instances, answers, strict=True):
        row: Row = {"id": instance.id, "prompt": instance.ask.prompt.text}
        row |= {**instance.data, "gold": instance.gold}
        found = answer.to_json()
        if "logprobs" in found:
            found["choice_logprobs"] = found.pop("logprobs")
        row |= {"output": None, **found}
        for name in ("group", "cluster"):
            if (value := getattr(instance, name)) is not None:
                row[name] = value
        if instance.id in task.cut:
            row["truncated"] = task.cut[instance.id]
        rows.append(row)
    return rows


@dataclasses.dataclass(frozen=True)
class Result:
    """A graded task."""

    rows: list[Row]
    metrics: dict[str, Any]
    run: dict[str, Any]

    @property
    def failures(self) -> int:
        """Instances that nobody could answer or grade."""
        return len(self.run["guards"]["failures"])


def grade(name: str, benchmark: Benchmark, context: Context, rows: Sequence[Row]) -> Result:
    """Grades answered rows; those that failed are in no metric."""
    answered = [row for row in rows if "error" not in row]
    grades = iter(benchmark.grade_all(answered, context))
    graded = [row if "error" in row else {**row, **next(grades)} for row in rows]
    counted = [row for row in graded if "error" not in row]
    metrics = dict(benchmark.metrics(counted, context)) if counted else {}
    headline = benchmark.headline(counted, context)
    errors = {headline.metric: headline.stderr, **benchmark.stderr(counted)}
    metrics |= {"stderr": {key: _number(value) for key, value in errors.items()}, "n": len(counted)}
    counts, notes = guards.look_at_answers(graded)
    notes += benchmark.remarks(counted, metrics, context) if counted else []
    run = {
        "task": name,
        "benchmark": benchmark.name,
        "metric": headline.metric,
        "value": _number(headline.value),
        "stderr": _number(headline.stderr),
        "n": headline.n,
        "unit": headline.unit,
        "higher_is_better": benchmark.higher_is_better,
        "macro": benchmark.macro,
        "quirks": dict(context.quirks),
        "settings": dataclasses.asdict(context.options),
        "chat": context.chat,
        "guards": counts,
        "warnings": notes,
    }
    return Result(graded, metrics, run)


def _number(value: float) -> float | None:
    """A number that JSON can hold: None where there is none."""
    return value if math.isfinite(value) else None


def ungraded(path: Path) -> list[Row]:
    """The rows of predictions.jsonl, to be graded anew: grading replaces what it added.

    An error of grading goes, that of an answer stays: there is nothing to grade.

    Raises:
      DataError: the file is missing or damaged.
    """
    rows = read_jsonl(path, "id", "gold", "output", origin=RESULT)
    for row in rows:
        for name in ("correct", "score", "extracted"):
            row.pop(name, None)
        if row["output"] is not None or "choice_logprobs" in row:
            row.pop("error", None)
    return rows


def write_result(result: Result, benchmark: Benchmark, context: Context, folder: Path) -> None:
    """Writes a result folder: the reference's own files first, `run.json` last.

    Files of the result that lay there before, and that this one does not have, go: tables of
    subjects that another model was asked would lie among those of this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counted = [row for row in result.rows if "error" not in row]
    before, old = _files(folder), json_or_none(folder / "run.json")
    benchmark.write(counted, result.metrics, folder, context)
    own = [name for name, state in _files(folder).items() if before.get(name) != state]
    listed = old.get("files") if isinstance(old, dict) else None
    for name in {*(listed if isinstance(listed, list) else ()), INSPECT_LOG} - {*own}:
        if name in before:
            (folder / name).unlink()
    write_jsonl(folder / "predictions.jsonl", result.rows)
    write_json(folder / "metrics.json", result.metrics)
    write_json(folder / "run.json", {**result.run, "files": sorted(own)})


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file is written anew, by its path in the folder."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {
        path.relative_to(folder).as_posix(): (stat.st_ino, stat.st_mtime_ns)
        for path, stat in found.items()
    }
