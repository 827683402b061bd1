"""What a study has found so far, read back from its folder: scores and losses of every cell."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.harness.reading import Result, read_suite
from eval.report.board import Board, Model, make_board, said
from eval.report.paper import paper_data
from eval.study.cells import LOSSES, Cell, Step, Table, results, trained_tasks
from eval.study.state import State, cell_state, states_of
from eval.study.study import NONE
from tulu_jax.data.mixtures import get_mixture
from tulu_jax.errors import DataError
from tulu_jax.files import read_json, sha256

AGAIN = "remove the step's done.json and run the study again"
Interval = tuple[float, float, float]
"""A value, and the ends of its interval of 95 %."""
QUANTILE = 1.96


@dataclass(frozen=True)
class Losses:
    """A model's loss on held-out conversations of a dataset, in nats a trained token."""

    loss: float
    examples: dict[str, tuple[float, int]]
    """By id the sum over its trained tokens, and how many they are."""

    @property
    def tokens(self) -> int:
        """Trained tokens."""
        return sum(count for _, count in self.examples.values())


@dataclass
class Outcome:
    """What is there of a cell."""

    cell: Cell
    state: State
    model: Model
    losses: dict[str, Losses] = field(default_factory=dict)
    """By the task that they are of."""

    @property
    def name(self) -> str:
        """The cell's."""
        return self.cell.name

    @property
    def data(self) -> str:
        """What tables call the data that it was trained on."""
        return self.cell.called or data_name(self.cell.dataset)

    @property
    def config_hash(self) -> str | None:
        """SHA-256 of the resolved settings of its training; None of a base model as it is."""
        train = self.cell.of("train")
        return sha256(train[0].settings["recipe"]) if train else None

    def folder(self, task: str) -> str:
        """The folder of a task's results, within the study's."""
        return f"{self._folders[task]}/{task}"

    @functools.cached_property
    def _folders(self) -> dict[str, str]:
        steps = self.cell.of("evaluate")
        return {task: results(step) for step in steps for task in step.settings["tasks"]}


@dataclass(frozen=True)
class Findings:
    """Everything that a report is made of."""

    table: Table
    outcomes: list[Outcome]
    board: Board
    losses: list[str]
    """The tasks that losses are measured on."""

    @property
    def scored(self) -> list[Outcome]:
        """Those that have a number."""
        return [one for one in self.outcomes if one.model.numbers]

    @property
    def tuned(self) -> list[Outcome]:
        """Those of them that were trained here."""
        return [one for one in self.scored if one.cell.dataset != NONE]

    @property
    def measured(self) -> list[Outcome]:
        """Those that have losses."""
        return [one for one in self.outcomes if one.losses]

    def base_of(self, outcome: Outcome) -> Outcome | None:
        """The base model of a tuned one as it is, where it has numbers."""
        name = outcome.cell.model.name
        found = [o for o in self.scored if o.cell.model.name == name and o.cell.dataset == NONE]
        return found[0] if found else None


def data_name(dataset: str) -> str:
    """What tables call a dataset: the paper's name where it has one.

    >>> data_name("tulu_super_ni"), data_name("tulu_dolly,tulu_cot")
    ('SuperNI', 'Dolly + CoT')
    """
    if dataset == NONE:
        return "none (as it is)"
    if (named := paper_data(dataset)) != dataset:
        return named
    parts = [paper_data(task) for task in get_mixture(dataset).tasks]
    return " + ".join(os.path.basename(part).removeprefix("tulu_") for part in parts)


def read_study(table: Table) -> Findings:
    """What lies in a study's folder; steps that are not done are left out and said.

    Raises: DataError for what cannot be read, or where nothing is done yet.
    """
    outcomes: list[Outcome] = []
    warnings: list[str] = []
    states = states_of(table)
    for cell in table.cells:
        model = Model(cell.name, {})
        outcome = Outcome(cell, cell_state(cell, states), model)
        outcomes.append(outcome)
        for step in cell.of("evaluate"):
            if states[step.key] == "done":
                warnings += _read_evaluation(table, step, model)
        for step in cell.of("losses"):
            if states[step.key] == "done":
                outcome.losses = read_losses(table.root / step.folder / LOSSES)
    missing = [one.name for one in outcomes if one.state != "done"]
    if missing:
        warnings.insert(0, f"{len(missing)} of {len(outcomes)} cells are not done: "
                        f"{', '.join(missing)}")  # fmt: skip
    if not any(one.model.results or one.losses for one in outcomes):
        raise DataError(
            "nothing of the study is done that could be reported", at=table.home,
            do="run it: tulu study run",
        )  # fmt: skip
    board = make_board([one.model for one in outcomes], warnings, paper=("none",))
    return Findings(table, outcomes, board, trained_tasks(table.study))


def _read_evaluation(table: Table, step: Step, model: Model) -> list[str]:
    """Adds an evaluation's results to the model's, those that no other has; what is to be said."""
    folder = table.root / results(step)
    found, left_out = read_suite(folder)
    warnings = list(left_out)
    lost = {*step.settings["tasks"]} - {result.task for result in found}
    warnings += [
        f"{task}: {model.name}: no result, though its step is done, so it is in no average or "
        f"finding - at {folder} - {AGAIN}"
        for task in sorted(lost)
    ]
    for result in found:
        if result.task not in model.results:
            model.results[result.task] = result
            warnings += [_named(result, model, line) for line in said(result)]
    return warnings


def _named(result: Result, model: Model, line: str) -> str:
    return line.replace(f": {result.model}: ", f": {model.name}: ", 1)


def read_losses(path: Path) -> dict[str, Losses]:
    """The file of a step of kind `losses`.

    Raises: DataError for a file that is missing or not what it must be.
    """
    said = read_json(
        path, DataError, expected="a file of `tulu study losses`", do=AGAIN, mend=AGAIN
    )
    try:
        return {str(task): _losses(one) for task, one in said["tasks"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "losses cannot be read", got=repr(error)[:80], at=path,
            expected="a file of `tulu study losses`", do=AGAIN,
        ) from error  # fmt: skip


def _losses(said: dict[str, Any]) -> Losses:
    examples = {str(name): (float(nll), int(count)) for name, nll, count in said["examples"]}
    loss = float(said["loss"])
    if not examples or not math.isfinite(loss):
        raise ValueError("no loss")
    return Losses(loss, examples)


def loss_difference(a: Losses, b: Losses) -> Interval:
    """How much higher b's loss is than a's over the conversations of both, with its interval.

    A ratio of sums, whose error counts conversations as drawn: those of one differ together.

    >>> a = Losses(2.0, {"x": (4.0, 2), "y": (4.0, 2)})
    >>> loss_difference(a, Losses(3.0, {"x": (6.0, 2), "y": (6.0, 2)}))
    (1.0, 1.0, 1.0)
    """
    both = [name for name in a.examples if name in b.examples]
    if not both:
        return math.nan, math.nan, math.nan
    rows = [(b.examples[n][0] - a.examples[n][0], a.examples[n][1]) for n in both]
    tokens, n = sum(count for _, count in rows), len(rows)
    value = math.fsum(more for more, _ in rows) / tokens
    if n < 2:
        return value, math.nan, math.nan
    spread = math.fsum((more - value * count) ** 2 for more, count in rows)
    error = math.sqrt(spread * n / (n - 1)) / tokens
    return value, value - QUANTILE * error, value + QUANTILE * error


def loss_interval(one: Losses) -> Interval:
    """A loss with its interval: its difference from none."""
    nothing = Losses(0.0, {name: (0.0, count) for name, (_, count) in one.examples.items()})
    return loss_difference(nothing, one)


def sizes_in_order(names: Sequence[str | None]) -> list[str]:
    """Sizes such as '7B' and '260K', the smallest first; those without a number last.

    >>> sizes_in_order(["13B", "260K", "7B", None])
    ['260K', '7B', '13B']
    """
    return sorted({name for name in names if name}, key=lambda name: (size_of(name), name))


def size_of(text: str | None) -> float:
    """How many weights a size says.

    >>> size_of("6.7B"), size_of("260K")
    (6700000000.0, 260000.0)
    """
    text = text or ""
    units = {"K": 1e3, "M": 1e6, "B": 1e9}
    try:
        return float(text[:-1]) * units[text[-1:].upper()]
    except (KeyError, ValueError):
        return math.inf
