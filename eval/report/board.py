"""What models scored, ready for tables: numbers, ties with the best, differences to a base."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval.harness import statistics
from eval.harness.compare import compare_results, unlike
from eval.harness.reading import RUN, Result, read_suite
from eval.report.paper import PaperRow, chosen_rows
from eval.report.tasks import AVERAGES, Number, in_order, number_of
from tulu_jax.errors import ConfigError, DataError


@dataclass(frozen=True)
class Difference:
    """How much better (in points, model - base) and how sure; `p` is Holm's over the tasks."""

    value: float
    stderr: float
    p: float
    good: bool

    @property
    def found(self) -> bool:
        """Whether it is beyond chance at 5 %."""
        return self.p <= 0.05


@dataclass
class Model:
    """A model's results by task. `numbers` holds averages too, by their names."""

    name: str
    results: dict[str, Result]
    numbers: dict[str, Number] = field(default_factory=dict)
    tied: set[str] = field(default_factory=set)
    """Tasks in which nobody is better beyond chance."""
    differences: dict[str, Difference] = field(default_factory=dict)

    @property
    def dataset(self) -> str | None:
        """What it was trained on, where its run.json says so."""
        for result in self.results.values():
            said = result.run["model"].get("dataset")
            if isinstance(said, str) and said:
                return said
        return None


@dataclass(frozen=True)
class Board:
    """Models and tasks in the order of the tables."""

    models: list[Model]
    tasks: list[str]
    paper: list[PaperRow]
    base: str | None
    warnings: list[str]

    @property
    def averages(self) -> list[str]:
        """The averages that a model here or of the paper has."""
        have = {name for source in (*self.models, *self.paper) for name in source.numbers}
        return [average.name for average in AVERAGES if average.name in have]


def read_board(
    folders: Sequence[Path], *, paper: Sequence[str] = ("auto",), base: str | None = None
) -> Board:
    """Everything that lies in these folders: results, suites, or folders of suites.

    Raises: DataError for what cannot be read; ConfigError for a base or a row that is not there.
    """
    models, warnings = _models(folders)
    return make_board(models, warnings, paper=paper, base=base)


def make_board(
    models: list[Model],
    warnings: Sequence[str] = (),
    *,
    paper: Sequence[str] = ("auto",),
    base: str | None = None,
) -> Board:
    """The board of models whose results are read; their numbers are filled in.

    Raises: ConfigError for a base or a row that is not there.
    """
    warnings = list(warnings)
    tasks = in_order([task for model in models for task in model.results])
    for model in models:
        found = {task: number_of(result) for task, result in model.results.items()}
        model.numbers = {task: number for task, number in found.items() if number is not None}
        for average in AVERAGES:
            number = average.of(model.numbers)
            if number is not None:
                model.numbers[average.name] = number
    for task in tasks:
        results = {model.name: model.results[task] for model in models if task in model.results}
        warnings += _mark_ties(models, task) + [f"{task}: {text}" for text in unlike(results)]
    if base is not None:
        warnings += _add_differences(models, _named(models, base), tasks)
    rows = chosen_rows(paper, [m.name for m in models], [m.dataset for m in models])
    return Board(models, tasks, rows, base, list(dict.fromkeys(warnings)))


def suite_folders(folder: Path) -> list[Path]:
    """The folder itself when it or a folder in it holds a result; else those in it that do so."""

    def holds(path: Path, name: str) -> bool:
        return (path / name).is_file() or any((p / name).is_file() for p in path.glob("*/"))

    if not folder.is_dir() or holds(folder, RUN):
        return [folder]
    inner = sorted(path for path in folder.glob("*/") if holds(path, RUN))
    return inner or [folder]


def _models(folders: Sequence[Path]) -> tuple[list[Model], list[str]]:
    models: list[tuple[Path, Model]] = []
    warnings: list[str] = []
    seen: set[Path] = set()
    for folder in (suite for named in folders for suite in suite_folders(named)):
        results, left_out = read_suite(folder)
        warnings += left_out
        for result in results:
            if result.folder in seen:
                raise DataError("one result is named twice", at=result.folder, do="name it once")
            seen.add(result.folder)
            _model_of(models, result, folder).results[result.task] = result
            warnings += said(result)
    _tell_apart(models)
    return [model for _, model in models], warnings


def _model_of(models: list[tuple[Path, Model]], result: Result, suite: Path) -> Model:
    """The model that a result belongs to: same name and fingerprint, and nothing of that task."""
    for _, model in models:
        prints = {other.fingerprint for other in model.results.values()}
        known = model.name == result.model and prints == {result.fingerprint}
        if known and result.task not in model.results:
            return model
    models.append((suite, Model(result.model, {})))
    return models[-1][1]


def _tell_apart(models: list[tuple[Path, Model]]) -> None:
    """Puts the folder behind names that several have, the whole path where that is one too."""
    for place in (lambda suite: suite.name, str):
        names = Counter(model.name for _, model in models)
        for suite, model in models:
            if names[model.name] > 1:
                own = next(iter(model.results.values())).model
                model.name = f"{own} [{place(suite)}]"


def said(result: Result) -> list[str]:
    """What is to know of a result, its own warnings among it."""
    said = result.run.get("warnings")
    texts = [str(text) for text in said] if isinstance(said, list) else []
    if result.failed:
        texts.append(
            f"{len(result.failed):,} of {len(result.instances):,} failed in the machinery and have "
            "no score"
        )
    return [f"{result.task}: {result.model}: {text}" for text in texts]


def _named(models: list[Model], name: str) -> Model:
    for model in models:
        if model.name == name:
            return model
    names = [model.name for model in models]
    near = difflib.get_close_matches(name, names, n=1)
    raise ConfigError("no result is of the base model", got=repr(name),
                      expected=f"one of {', '.join(names)}",
                      do=f"did you mean {near[0]}?" if near else None)  # fmt: skip


def _mark_ties(models: list[Model], task: str) -> list[str]:
    """Marks the best in a task and those whose difference from it could be chance."""
    able = [model for model in models if task in model.numbers]
    if len(able) < 2:
        return []
    up = able[0].results[task].higher_is_better
    best = max(able, key=lambda model: model.numbers[task].value * (1 if up else -1))
    warnings: list[str] = []
    p_values = {
        model.name: difference(best, model, task, warnings)[2]
        for model in able
        if model is not best
    }
    tied = statistics.tied_with_best(best.name, p_values)
    for model in able:
        if model.name in tied:
            model.tied.add(task)
    return warnings


def _add_differences(models: list[Model], base: Model, tasks: list[str]) -> list[str]:
    """Gives each model its difference to the base; p-values by Holm over its tasks."""
    warnings: list[str] = []
    for model in models:
        both = [t for t in tasks if t in model.numbers and t in base.numbers and model is not base]
        found = {task: difference(base, model, task, warnings) for task in both}
        adjusted = statistics.holm([p for _, _, p in found.values()])
        for (task, (value, stderr, _)), p in zip(found.items(), adjusted, strict=True):
            up = model.results[task].higher_is_better
            model.differences[task] = Difference(value, stderr, p, (value > 0) == up)
        numbers = {t: Number(d.value, d.stderr, None) for t, d in model.differences.items()}
        for average in AVERAGES:
            number = average.of(numbers)
            if number is not None:
                p = statistics.difference_p(number.value, number.stderr)
                model.differences[average.name] = Difference(
                    number.value, number.stderr, p, number.value > 0
                )
    return warnings


def difference(a: Model, b: Model, task: str, warnings: list[str]) -> tuple[float, float, float]:
    """b - a with its error and p: paired where they have instances in common."""
    first, second = a.results[task], b.results[task]
    try:
        found = compare_results(first, second)
    except DataError as error:
        warnings.append(f"{task}: {a.name} and {b.name} are not paired: {error}")
        loose = _unpaired(a.numbers[task], b.numbers[task], first.higher_is_better)
        return loose.value, loose.stderr, loose.p
    if found.unpaired:
        warnings.append(
            f"{task}: {a.name} and {b.name} are compared on the {found.n:,} instances of both"
        )
    return found.difference, found.stderr, found.p


def _unpaired(a: Number, b: Number, up: bool) -> Difference:
    """The difference of two numbers taken as independent, by the normal distribution."""
    value, stderr = b.value - a.value, math.hypot(a.stderr, b.stderr)
    return Difference(value, stderr, statistics.difference_p(value, stderr), (value > 0) == up)
