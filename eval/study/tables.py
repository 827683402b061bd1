"""The tables of a study's report: the paper's, with its numbers beside, and held-out losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from eval.harness.reading import PREDICTIONS
from eval.report.grid import Cell, Grid, TextCell
from eval.report.paper import PaperRow, paper_data, paper_rows
from eval.report.tasks import AVERAGES, Average, Number, task_of
from eval.study.cells import LOSSES
from eval.study.results import Findings, Interval, Outcome, data_name, size_of
from eval.study.study import NONE
from tulu_jax.data.mixtures import get_mixture

Link = Callable[[str], str | None]
"""The address of a path within the study's folder; None where nothing is to be linked."""
REFERENCE = ("LLaMa", "13B")
"""The paper's base model of its table of datasets."""


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    name: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Grid, ...] = ()
    figure: str = ""
    """SVG without style."""


def within(path: str) -> str:
    """The address of a path, for a report that lies in the study's folder."""
    return quote(path, safe="/+,=@")


# ---- which cells, by which numbers ---------------------------------------------------------------
def is_single(outcome: Outcome) -> bool:
    """Whether it was trained on one dataset."""
    dataset = outcome.cell.dataset
    return dataset != NONE and len(get_mixture(dataset).tasks) == 1


def is_mixture(outcome: Outcome) -> bool:
    """Whether it was trained on several."""
    return outcome.cell.dataset != NONE and not is_single(outcome)


def main_base(outcomes: Sequence[Outcome]) -> str | None:
    """The base model that was trained on most single datasets, at least two."""
    found = Counter(one.cell.model.name for one in outcomes if is_single(one))
    return next((name for name, count in found.most_common(1) if count > 1), None)


def average_of(outcomes: Sequence[Outcome]) -> Average | None:
    """The average that all of them have: the paper's, else over the tasks that all have."""
    numbers = [one.model.numbers for one in outcomes]
    for average in reversed(AVERAGES):
        if numbers and all(average.name in found for found in numbers):
            return average
    results = [one.model.results for one in outcomes]
    if not results:
        return None
    benchmarks: dict[str, list[str]] = {}
    for task, result in results[0].items():
        if result.higher_is_better and all(task in one.model.numbers for one in outcomes):
            benchmarks.setdefault(result.benchmark, []).append(task)
    if not benchmarks:
        return None
    groups = tuple(tuple(tasks) for tasks in benchmarks.values())
    tasks = sum(map(len, groups))
    return Average("mean", f"mean of {tasks} tasks", groups)


def paper_row(outcome: Outcome) -> PaperRow | None:
    """The paper's row of the same data on the same base model, else on LLaMA 13B; newest first."""
    model, dataset = outcome.cell.model, outcome.cell.dataset
    data = NONE if dataset == NONE else paper_data(dataset)
    rows = sorted(
        (row for row in paper_rows() if row.data == data), key=lambda row: row.version, reverse=True
    )
    for wanted in ((model.family, model.size), REFERENCE):
        for row in rows:
            if (row.base_model, row.size) == wanted:
                return row
    return None


# ---- cells ---------------------------------------------------------------------------------------
def words(text: str, link: str | None = None, *, tied: bool = False) -> TextCell:
    """A cell of text."""
    return TextCell(words=text, link=link, tied=tied)


def interval(found: Interval, digits: int = 1, *, sign: bool = True) -> str:
    """A value with its interval of 95 %.

    >>> interval((1.25, 0.5, 2.0)), interval((1.0, math.nan, math.nan), 2, sign=False)
    ('+1.2 [+0.5, +2.0]', '1.00')
    """
    form = f"{'+' if sign else ''}.{digits}f"
    value, low, high = found
    if math.isnan(value):
        return "–"
    shown = format(value, form)
    return shown if math.isnan(low) else f"{shown} [{low:{form}}, {high:{form}}]"


def score_grid(
    outcomes: Sequence[Outcome],
    tasks: Sequence[str],
    place: Link,
    *,
    name: Callable[[Outcome], str],
    corner: str,
    paper: bool = True,
) -> Grid:
    """Cells by tasks with their average, the paper's rows below those that they belong to."""
    average = average_of(outcomes)
    columns = [task_of(task).title for task in tasks] + ([average.title] if average else [])
    rows: list[tuple[str, list[Cell]]] = []
    shown: set[tuple[str, ...]] = set()
    usual = [_usual_n(outcomes, task) for task in tasks]
    for one in outcomes:
        cells = [_score(one, task, place, n) for task, n in zip(tasks, usual, strict=True)]
        rows.append((name(one), cells + ([Cell(average.of(one.model.numbers))] if average else [])))
        row = paper_row(one) if paper else None
        if row is not None and row.labels not in shown:
            shown.add(row.labels)
            known = [Cell(row.numbers.get(task)) for task in (*tasks, *_name_of(average))]
            if any(cell.number for cell in known):
                rows.append((f"paper: {row.base_model} {row.size}, {row.data}", known))
    counts = usual + ([None] if average else [])
    notes = ["±: standard error; shares in per cent; n: instances, of our rows"]
    if any(task in one.model.tied for one in outcomes for task in tasks):
        notes.append("†: statistically tied with the best of all cells (paired tests at 5 %, Holm)")
    return Grid(corner, columns, rows, counts, False, len(rows), notes)


def _name_of(average: Average | None) -> list[str]:
    return [average.name] if average else []


def _score(one: Outcome, task: str, place: Link, usual: int | None) -> Cell:
    """A number, with its n where that is not the column's."""
    number = one.model.numbers.get(task)
    if number is None:
        return Cell()
    link = place(f"{one.folder(task)}/{PREDICTIONS}")
    own = number.n if number.n != usual else None
    return Cell(number, own, tied=task in one.model.tied, link=link)


def _usual_n(outcomes: Sequence[Outcome], task: str) -> int | None:
    found = Counter(one.model.numbers[task].n for one in outcomes if task in one.model.numbers)
    return found.most_common(1)[0][0] if found else None


# ---- sections ------------------------------------------------------------------------------------
def datasets_section(found: Findings, place: Link) -> Section | None:
    """Table 3 of the paper: what one base model learned from each dataset."""
    base = main_base(found.scored)
    if base is None:
        return None
    outcomes = [one for one in found.scored if one.cell.model.name == base]
    order = (lambda one: one.cell.dataset != NONE, is_mixture)
    outcomes.sort(key=lambda one: [rule(one) for rule in order])
    named = [task for benchmark in AVERAGES[1].benchmarks for task in benchmark]
    tasks = [task for task in found.board.tasks if task in named or _is_judged(task)]
    grid = score_grid(
        outcomes, tasks or found.board.tasks, place,
        name=lambda one: one.data, corner=f"{base}, trained on",
    )  # fmt: skip
    return Section("datasets", f"Datasets, on {base} (the paper's table 3)", tables=(grid,))


def _is_judged(task: str) -> bool:
    return task.startswith("alpaca_eval")


def models_section(found: Findings) -> Section | None:
    """Table 4: averages by dataset and base model, for datasets that several were trained on."""
    by_data: dict[str, list[Outcome]] = {}
    for one in found.scored:
        by_data.setdefault(one.cell.dataset, []).append(one)
    shared = [data for data, ones in by_data.items() if len(ones) > 1]
    outcomes = [one for data in shared for one in by_data[data]]
    average = average_of(outcomes)
    if not any(data != NONE for data in shared) or average is None:
        return None
    models = list({one.cell.model.name: one.cell.model for one in outcomes}.values())
    models.sort(key=lambda model: size_of(model.size))
    rows: list[tuple[str, list[Cell]]] = []
    for data in shared:
        numbers = {one.cell.model.name: one for one in by_data[data]}
        cells = [
            Cell(average.of(numbers[m.name].model.numbers)) if m.name in numbers else Cell()
            for m in models
        ]
        rows.append((by_data[data][0].data, cells))
        theirs = [_paper_average(numbers.get(m.name), average) for m in models]
        if any(cell.number for cell in theirs):
            rows.append((f"paper: {by_data[data][0].data}", theirs))
    grid = Grid(
        f"{average.title} of", [model.name for model in models], rows, None, False, len(rows),
        [_words_of(average)],
    )  # fmt: skip
    return Section("models", "Base models and sizes (table 4)", tables=(grid,))


def _words_of(average: Average) -> str:
    tasks = ", ".join(task_of(task).title for group in average.benchmarks for task in group)
    return f"{average.title}: of {tasks}; settings of one benchmark are averaged first"


def _paper_average(one: Outcome | None, average: Average) -> Cell:
    row = paper_row(one) if one is not None else None
    model = one.cell.model if one else None
    if row is None or model is None or (row.base_model, row.size) != (model.family, model.size):
        return Cell()
    return Cell(row.numbers.get(average.name))


def benchmarks_section(found: Findings, place: Link) -> Section | None:
    """Tables 5 and 7: every cell by every task."""
    if not found.scored:
        return None
    grid = score_grid(
        found.scored, found.board.tasks, place, name=lambda one: one.name, corner="cell",
    )  # fmt: skip
    lower = [
        task_of(task).title
        for task in found.board.tasks
        for one in found.scored[:1]
        if task in one.model.results and not one.model.results[task].higher_is_better
    ]
    grid.notes.extend([f"lower is better: {', '.join(lower)}"] if lower else [])
    return Section("benchmarks", "Every cell by benchmark (tables 5 and 7)", tables=(grid,))


def losses_section(found: Findings, place: Link) -> Section | None:
    """Loss of every model on every dataset's held-out conversations, a table a base model."""
    grids = []
    for name in dict.fromkeys(one.cell.model.name for one in found.measured):
        outcomes = [one for one in found.measured if one.cell.model.name == name]
        outcomes.sort(key=lambda one: one.cell.dataset != NONE)
        tasks = [task for task in found.losses if any(task in one.losses for one in outcomes)]
        best = {
            task: min(one.losses[task].loss for one in outcomes if task in one.losses)
            for task in tasks
            if len(outcomes) > 1
        }
        rows = [
            (one.data, [_loss(one, task, best.get(task), place) for task in tasks])
            for one in outcomes
        ]
        counts = [len(outcomes[0].losses[task].examples) for task in tasks]
        grids.append(Grid(f"{name}, trained on", [data_name(task) for task in tasks], rows,
                          [*counts], False, len(rows), []))  # fmt: skip
    if not grids:
        return None
    said = ("Mean loss in nats a trained token on conversations that no model was trained on; "
            "n: conversations; bold: the lowest of a column. Base models of other tokenizers "
            "cannot be compared.",)  # fmt: skip
    return Section("losses", "Held-out loss of every model on every dataset", said, tuple(grids))


def _loss(one: Outcome, task: str, best: float | None, place: Link) -> Cell:
    if task not in one.losses:
        return Cell()
    (step,) = one.cell.of("losses")
    loss = one.losses[task].loss
    return words(f"{loss:.3f}", place(f"{step.folder}/{LOSSES}"), tied=loss == best)


def cells_section(found: Findings, place: Link) -> Section:
    """Where every cell's numbers come from."""
    rows: list[tuple[str, list[Cell]]] = []
    for one in found.outcomes:
        train, export = one.cell.of("train"), one.cell.of("export")
        evaluations = one.cell.of("evaluate")
        digest = one.config_hash
        rows.append((one.name, [
            words(one.state),
            words(digest[:12] if digest else "–"),
            words(train[0].folder, place(f"{train[0].folder}/run")) if train else words("–"),
            words(export[0].key, place(f"{export[0].folder}/{one.name}")) if export else words("–"),
            words(" ".join(step.key for step in evaluations) or "–",
                  place(f"{evaluations[0].folder}/results") if evaluations else None),
        ]))  # fmt: skip
    columns = ["state", "config hash", "run folder", "weights", "evaluations"]
    grid = Grid("cell", columns, rows, None, False, len(rows), [
        "config hash: the first letters of the SHA-256 of the resolved settings of the training, "
        "without data and paths; folders are named by the hash of all that their step depends on",
    ])  # fmt: skip
    return Section("cells", "Where numbers come from", tables=(grid,))


def number_rows(found: Findings) -> list[dict[str, object]]:
    """Every number with all its digits, and where it comes from: a line a cell and task."""
    rows: list[dict[str, object]] = []
    for one in found.outcomes:
        common = {"cell": one.name, "model": one.cell.model.name, "dataset": one.cell.dataset,
                  "config_hash": one.config_hash or ""}  # fmt: skip
        for task in found.board.tasks:
            number: Number | None = one.model.numbers.get(task)
            if number is not None:
                result = one.model.results[task]
                rows.append({
                    **common, "task": task, "metric": result.metric, "value": number.value,
                    "stderr": "" if math.isnan(number.stderr) else number.stderr, "n": number.n,
                    "from": f"{one.folder(task)}/{PREDICTIONS}",
                })  # fmt: skip
        for task, loss in one.losses.items():
            (step,) = one.cell.of("losses")
            rows.append({
                **common, "task": task, "metric": "heldout_loss", "value": loss.loss, "stderr": "",
                "n": len(loss.examples), "from": f"{step.folder}/{LOSSES}",
            })  # fmt: skip
    return rows
