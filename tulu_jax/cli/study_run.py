"""`tulu study run` and `status`: steps that are run by Snakemake, and how far they are."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from eval.study.cells import Table


MEASURES = ("evaluate", "losses")
"""Kinds of steps that find something to report."""


def run_study(table: Table, args: argparse.Namespace, console: Console) -> int:
    """Runs what is not done, prints how far the study is and writes its report, of what is done.

    The exit status is 1 if not all is.

    Raises: ConfigError without Snakemake, or where the study is being run already; StorageError
        where it lies in a bucket that cannot be written.
    """
    from eval.study.state import state_of
    from eval.study.workflow import find_snakemake, run_workflow
    from tulu_jax.cli.study_report import write_reports
    from tulu_jax.places import Address, check_writable

    left = [step for step in table.steps if state_of(table.root, step) != "done"]
    if left:
        program = find_snakemake(args.snakemake)
        if isinstance(table.home, Address):
            check_writable(table.home)
        run_workflow(table, program, jobs=args.jobs, executor=args.executor)
    print_status(table, console)
    if any(state_of(table.root, step) == "done" for step in table.steps if step.kind in MEASURES):
        path = write_reports(table)
        console.print(f"{path}: open it with a browser; beside it Markdown, LaTeX and numbers.csv",
                      soft_wrap=True)  # fmt: skip
    return int(any(state_of(table.root, step) != "done" for step in table.steps))


def print_status(table: Table, console: Console) -> None:
    """Prints each cell's state, how many steps are in each, and why some failed."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    from eval.study.state import LOG, cell_state, failures, states_of
    from eval.study.study import KINDS, Kind
    from tulu_jax.console import visible

    states = states_of(table)
    rows = RichTable(box=SIMPLE_HEAD, padding=(0, 1))
    kinds: list[Kind] = [kind for kind in KINDS if any(cell.of(kind) for cell in table.cells)]
    for name in ("cell", "state", *kinds):
        rows.add_column(name, no_wrap=True)
    for cell in table.cells:
        found = [_progress([states[step.key] for step in cell.of(kind)]) for kind in kinds]
        rows.add_row(cell.name, cell_state(cell, states), *found)
    console.print(rows)
    for one in table.people:
        pairs = ", ".join(f"{a.name} and {b.name}" for a, b in one.pairs)
        console.print(f"{one.asked.name}: people compare {pairs}: {states[one.step.key]}",
                      soft_wrap=True)  # fmt: skip
    counts = Counter(states.values())
    said = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    console.print(f"{len(table.cells)} cells, {len(states)} steps: {said}", soft_wrap=True)
    for step, lines in failures(table):
        log = table.root / step.folder / LOG
        console.print(f"failed: {step.kind} {step.name}, {log}", style="red", soft_wrap=True)
        for line in lines:
            console.print(f"  {visible(line)}", soft_wrap=True)


def _progress(states: list[Any]) -> str:
    """How far the steps of a kind are: nothing without any, their state where all have one."""
    if not states:
        return ""
    if len(set(states)) == 1:
        return str(states[0])
    return f"{states.count('done')}/{len(states)} done"


def status_json(table: Table) -> dict[str, Any]:
    """The state of every cell and step, with the last lines of those that failed."""
    from eval.study.state import cell_state, failures, states_of

    states = states_of(table)
    logs = {step.key: lines for step, lines in failures(table)}
    return {
        "study": table.study.name,
        "folder": table.study.folder,
        "cells": {cell.name: cell_state(cell, states) for cell in table.cells},
        "people": {one.asked.name: states[one.step.key] for one in table.people},
        "steps": {
            step.folder: {
                "name": step.name,
                "state": states[step.key],
                **({"log": logs[step.key]} if step.key in logs else {}),
            }
            for step in table.steps
        },
    }
