"""What a study takes: steps that are there, memory and time of each training, from shapes alone."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from eval.study.cells import Cell, Table
    from eval.study.state import State
    from eval.study.study import BaseModel
    from tulu_jax.plan import PlannedRun
    from tulu_jax.plan.duration import Schedule
    from tulu_jax.plan.hlo import Traffic
    from tulu_jax.train.budget import Budget
    from tulu_jax.train.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the training of a cell takes, estimated. None: nothing is known of it."""

    slice_name: str
    device_bytes: float
    usable_bytes: float | None
    steps: int | None = None
    hours: float | None = None
    chip_hours: float | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the estimate lies within a device's memory."""
        return None if self.usable_bytes is None else self.device_bytes <= self.usable_bytes


@dataclasses.dataclass(frozen=True)
class PlannedCell:
    """A cell, how far it is, and what it takes."""

    cell: Cell
    state: State
    steps_done: int
    cost: Cost | None
    note: str = ""
    """Why nothing is known of its cost."""


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """A table with what it takes."""

    table: Table
    cells: list[PlannedCell]
    states: dict[str, State]
    """Of every step, by its key."""
    steps: dict[str, tuple[int, int]]
    """By kind: how many are done, of how many."""
    judge_dollars: float
    """Of evaluations that are not done and say what their judge costs."""
    judge_unknown: list[str]
    """The names of evaluations that do not say it."""


def plan_study(table: Table) -> StudyPlan:
    """The plan; nothing is compiled, and of a study's folder only markers are looked at.

    Raises: ConfigError for a layout that cannot be, or a topology that is not known.
    """
    from eval.study.state import cell_state, states_of
    from tulu_jax.cli.study_judges import judge_dollars

    states = states_of(table)
    costs = Costs(table)
    cells = []
    for cell in table.cells:
        cost, note = _cost_or_why(costs, cell)
        finished = sum(states[step.key] == "done" for step in cell.steps)
        cells.append(PlannedCell(cell, cell_state(cell, states), finished, cost, note))
    total = Counter(step.kind for step in table.steps)
    there = Counter(step.kind for step in table.steps if states[step.key] == "done")
    study = table.study
    known = {
        one.name: judge_dollars(one, study.eval_data_dir)
        for grid in study.grids
        for one in grid.evaluations
    }
    asked = [
        step.name.rpartition(": ")[2]
        for step in table.steps
        if step.kind == "evaluate" and states[step.key] != "done"
    ]
    return StudyPlan(
        table,
        cells,
        states,
        {kind: (there[kind], count) for kind, count in total.items()},
        sum(known[name] or 0 for name in asked),
        sorted({name for name in asked if known[name] is None}),
    )


def _cost_or_why(costs: Costs, cell: Cell) -> tuple[Cost | None, str]:
    if not cell.of("train"):
        return None, "not trained"
    if cell.model.topology is None:
        return None, "no topology"
    return costs.of(cell), ""


class Costs:
    """What trainings cost; layouts and schedules that cells have in common are made once."""

    def __init__(self, table: Table) -> None:
        """Of the cells of a table."""
        self._table = table
        self._schedules: dict[str, Schedule | None] = {}
        self._configs: dict[str, TrainConfig] = {}

    def of(self, cell: Cell) -> Cost:
        """The cost of the cell's training on its topology.

        Raises: ConfigError for a layout that cannot be, or a topology that is not known.
        """
        from tulu_jax.plan import roofline
        from tulu_jax.plan.duration import duration

        model = cell.model
        config = self._config(model)
        try:
            planned, traffic, budget = _laid_out(_Layout(config, str(model.topology)))
        except ConfigError as error:
            raise ConfigError(f"BaseModel {model.name!r} cannot be planned: {error}") from None
        schedule, chip = self._schedule(config, cell), planned.topology.chip
        usable = chip.usable_bytes if chip else None
        cost = Cost(planned.topology.slice_name, budget.total, usable)
        roof = roofline(planned, traffic, schedule.work, budget=budget) if schedule else None
        if schedule is None or roof is None:
            steps = schedule.steps if schedule else config.train_steps
            return dataclasses.replace(cost, steps=steps)
        time = duration(planned, roof, schedule)
        return dataclasses.replace(
            cost, steps=schedule.steps, hours=time.hours, chip_hours=time.chip_hours
        )

    def _config(self, model: BaseModel) -> TrainConfig:
        """The training of a base model; with its weights folder where that says its shape."""
        from eval.study.cells import place
        from tulu_jax.cli.study_gin import config_of

        key = repr((model.checkpoint, model.gin_files, model.settings))
        if key not in self._configs:
            initial = place(self._table.study, model.checkpoint) if model.checkpoint else None
            plain = config_of(model)
            self._configs[key] = plain if plain.model else config_of(model, initial)
        return self._configs[key]

    def _schedule(self, config: TrainConfig, cell: Cell) -> Schedule | None:
        from eval.study.cells import options_of
        from tulu_jax.cli.plan import published_schedule

        options = options_of(self._table.study, cell.dataset)
        data = config.data
        key = repr((
            cell.dataset, options, config.train_steps, data.length, data.batch_size, data.epochs,
            data.packing, data.max_examples, data.seed,
        ))  # fmt: skip
        if key not in self._schedules:
            data = dataclasses.replace(data, mixture=cell.dataset, options=options)
            run = dataclasses.replace(config, data=data)
            self._schedules[key] = published_schedule(run)
        return self._schedules[key]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """A training on a topology, by which a cache knows it."""

    config: TrainConfig
    topology: str

    def __hash__(self) -> int:
        return hash((self.topology, self.config.initial_checkpoint, repr(self.config.model)))


@functools.cache
def _laid_out(layout: _Layout) -> tuple[PlannedRun, Traffic, Budget]:
    """The run, its traffic, and what a device needs."""
    from tulu_jax.plan import memory_budget, plan_run
    from tulu_jax.plan.estimate import estimate_traffic

    planned = plan_run(layout.config, _topology(layout.topology))
    return planned, estimate_traffic(planned), memory_budget(planned)


@functools.cache
def _topology(name: str) -> Any:
    from tulu_jax.cli.plan import only_cpu
    from tulu_jax.plan import find_topology

    only_cpu(name)
    return find_topology(name)


def print_study(plan: StudyPlan, console: Console) -> None:
    """Prints cells, steps, sums, and what is not known."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    from tulu_jax.plan.report import gib

    study = plan.table.study
    console.print(f"study {study.name} in {study.folder}", soft_wrap=True)
    rows = RichTable(box=SIMPLE_HEAD, padding=(0, 1))
    for at, name in enumerate(
        ("cell", "state", "done", "slice", "GiB a chip", "steps", "hours", "chip-hours")
    ):
        rows.add_column(name, justify="left" if at in (0, 1, 3) else "right", no_wrap=True)
    for one in plan.cells:
        cost = one.cost
        done = f"{one.steps_done}/{len(one.cell.steps)}"
        if cost is None:
            rows.add_row(one.cell.name, one.state, done, one.note)
            continue
        memory = gib(cost.device_bytes) + ("" if cost.fits is not False else " too much")
        rows.add_row(
            one.cell.name, one.state, done, cost.slice_name, memory,
            *(_number(value, digits) for value, digits in
              ((cost.steps, 0), (cost.hours, 1), (cost.chip_hours, 0))),
        )  # fmt: skip
    console.print(rows)
    for line in people(plan):
        console.print(line, soft_wrap=True)
    for line in summary(plan):
        console.print(line, soft_wrap=True)


def people(plan: StudyPlan) -> list[str]:
    """A line a pair of cells that people compare."""
    lines = []
    for one in plan.table.people:
        asked, state = one.asked, plan.states[one.step.key]
        of = f"{asked.task} ({', '.join(asked.groups)})" if asked.groups else asked.task
        lines += [f"people compare {a.name} and {b.name}, answers to {of}: {state}"
                  for a, b in one.pairs]  # fmt: skip
    return lines


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def summary(plan: StudyPlan) -> list[str]:
    """The lines below the table."""
    from tulu_jax.plan.duration import EFFICIENCY

    kinds = ", ".join(f"{done} of {n} {kind}" for kind, (done, n) in plan.steps.items())
    total = sum(n for _, n in plan.steps.values())
    lines = [f"{len(plan.cells)} cells, {total} steps; done: {kinds}"]
    left = [one.cost.chip_hours for one in plan.cells if one.cost and not _is_trained(plan, one)]
    known = [hours for hours in left if hours is not None]
    lines.append(
        f"training that is left: {sum(known):,.0f} chip-hours in {len(known)} runs, if "
        f"{EFFICIENCY:.0%} of the roofline is reached (`tulu plan` compiles)"
        + (f"; {len(left) - len(known)} more are not estimated" if len(left) > len(known) else "")
    )
    for kind, resources in plan.table.study.resources.items():
        said = ", ".join(f"{name}={value}" for name, value in resources.items())
        lines.append(f"{kind} on a cluster: {said}")
    for kind, program in plan.table.study.submit.items():
        lines.append(f"{kind} is submitted by: {program}")
    unknown = ", ".join(plan.judge_unknown)
    lines.append(
        f"judges: {plan.judge_dollars:,.2f} dollars, if outputs are as long as the reference's"
        + (f", and what those of {unknown} cost, which is not known" if unknown else "")
    )
    lines.append("time of evaluation is not estimated")
    return lines


def _is_trained(plan: StudyPlan, one: PlannedCell) -> bool:
    return all(plan.states[step.key] == "done" for step in one.cell.of("train"))


def as_json(plan: StudyPlan) -> dict[str, Any]:
    """The plan as JSON values: sizes in bytes, times in hours."""
    study = plan.table.study
    return {
        "study": study.name,
        "folder": study.folder,
        "cells": [
            {
                "cell": one.cell.name,
                "model": one.cell.model.name,
                "dataset": one.cell.dataset,
                "state": one.state,
                "cost": dataclasses.asdict(one.cost) if one.cost else None,
                "steps": [step.folder for step in one.cell.steps],
            }
            for one in plan.cells
        ],
        "people": [
            {
                "name": one.asked.name,
                "pairs": [[a.name, b.name] for a, b in one.pairs],
                "step": one.step.folder,
            }
            for one in plan.table.people
        ],
        "steps": {
            step.folder: {
                "name": step.name,
                "state": plan.states[step.key],
                "parents": [parent.folder for parent in step.parents],
                "command": ["tulu", *step.argv],
            }
            for step in plan.table.steps
        },
        "judge_dollars": plan.judge_dollars,
        "judge_unknown": plan.judge_unknown,
        "resources": {kind: dict(found) for kind, found in study.resources.items()},
        "submit": dict(study.submit),
    }
