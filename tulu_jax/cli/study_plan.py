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
    from tulu_jax.plan import PlannedRun
    from tulu_jax.plan.hlo import Traffic
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
    from eval.study.state import cell_state, state_of

    done = {step.key for step in table.steps if state_of(table.root, step) == "done"}
    cells = []
    for cell in table.cells:
        cost, note = _cost_or_why(table, cell)
        finished = sum(step.key in done for step in cell.steps)
        cells.append(PlannedCell(cell, cell_state(table, cell), finished, cost, note))
    total = Counter(step.kind for step in table.steps)
    there = Counter(step.kind for step in table.steps if step.key in done)
    known = {one.name: one.judge_dollars for grid in table.study.grids for one in grid.evaluations}
    asked = {
        step.key: step.name.rpartition(": ")[2]
        for step in table.steps
        if step.kind == "evaluate" and step.key not in done
    }
    return StudyPlan(
        table,
        cells,
        {kind: (there[kind], count) for kind, count in total.items()},
        sum(known[name] or 0 for name in asked.values()),
        sorted({name for name in asked.values() if known[name] is None}),
    )


def _cost_or_why(table: Table, cell: Cell) -> tuple[Cost | None, str]:
    if not cell.of("train"):
        return None, "not trained"
    if cell.model.topology is None:
        return None, "no topology"
    return cost_of(table, cell), ""


def cost_of(table: Table, cell: Cell) -> Cost:
    """The cost of the cell's training on its topology.

    Raises: ConfigError for a layout that cannot be, or a topology that is not known.
    """
    from eval.study.cells import options_of, place
    from tulu_jax.cli.plan import published_schedule
    from tulu_jax.cli.study_gin import config_of
    from tulu_jax.plan import roofline
    from tulu_jax.plan.duration import duration

    model = cell.model
    initial = place(table.study, model.checkpoint) if model.checkpoint else None
    plain = config_of(model)
    config = plain if plain.model else config_of(model, initial)
    try:
        planned, traffic, device_bytes = _laid_out(_Layout(config, str(model.topology)))
    except ConfigError as error:
        raise ConfigError(f"BaseModel {model.name!r} cannot be planned: {error}") from None
    data = dataclasses.replace(
        config.data, mixture=cell.dataset, options=options_of(table.study, cell.dataset)
    )
    schedule = published_schedule(dataclasses.replace(config, data=data))
    chip = planned.topology.chip
    cost = Cost(planned.topology.slice_name, device_bytes, chip.usable_bytes if chip else None)
    roof = roofline(planned, traffic, schedule.work) if schedule else None
    if schedule is None or roof is None:
        return dataclasses.replace(cost, steps=schedule.steps if schedule else config.train_steps)
    time = duration(planned, roof, schedule)
    return dataclasses.replace(
        cost, steps=schedule.steps, hours=time.hours, chip_hours=time.chip_hours
    )


@dataclasses.dataclass(frozen=True)
class _Layout:
    """A training on a topology, by which a cache knows it."""

    config: TrainConfig
    topology: str

    def __hash__(self) -> int:
        return hash((self.topology, self.config.initial_checkpoint, repr(self.config.model)))


@functools.cache
def _laid_out(layout: _Layout) -> tuple[PlannedRun, Traffic, float]:
    """The run, its traffic, and the bytes that a device needs."""
    from tulu_jax.plan import memory_budget, plan_run
    from tulu_jax.plan.estimate import estimate_traffic

    planned = plan_run(layout.config, _topology(layout.topology))
    return planned, estimate_traffic(planned), memory_budget(planned).total


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
    for line in summary(plan):
        console.print(line, soft_wrap=True)


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
    unknown = ", ".join(plan.judge_unknown)
    lines.append(
        f"judges: {plan.judge_dollars:,.2f} dollars"
        + (f", and what those of {unknown} cost, which is not known" if unknown else "")
    )
    lines.append("time of evaluation is not estimated")
    return lines


def _is_trained(plan: StudyPlan, one: PlannedCell) -> bool:
    from eval.study.state import state_of

    return all(state_of(plan.table.root, step) == "done" for step in one.cell.of("train"))


def as_json(plan: StudyPlan) -> dict[str, Any]:
    """The plan as JSON values: sizes in bytes, times in hours."""
    from eval.study.state import state_of

    study, root = plan.table.study, plan.table.root
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
        "steps": {
            step.folder: {
                "name": step.name,
                "state": state_of(root, step),
                "parents": [parent.folder for parent in step.parents],
                "command": ["tulu", *step.argv],
            }
            for step in plan.table.steps
        },
        "judge_dollars": plan.judge_dollars,
        "judge_unknown": plan.judge_unknown,
    }
