"""`tulu study run` and `status`: steps that are run by Snakemake, and how far they are."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from eval.study.cells import Table


def run_study(table: Table, args: argparse.Namespace, console: Console) -> int:
    """Runs what is not done and prints how far the study is; the exit status, 1 if not all is.

    Raises: ConfigError without Snakemake, or where the study is being run already.
    """
    from eval.study.state import state_of
    from eval.study.workflow import find_snakemake, run_workflow

    left = [step for step in table.steps if state_of(table.root, step) != "done"]
    if left:
        run_workflow(table, find_snakemake(args.snakemake), jobs=args.jobs)
    print_status(table, console)
    return int(any(state_of(table.root, step) != "done" for step in table.steps))


def print_status(table: Table, console: Console) -> None:
    """Prints each cell's state, how many steps are in each, and why some failed."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    from eval.study.cells import KINDS
    from eval.study.state import LOG, cell_state, failures, state_of
    from tulu_jax.console import visible

    states = {step.key: state_of(table.root, step) for step in table.steps}
    rows = RichTable(box=SIMPLE_HEAD, padding=(0, 1))
    for name in ("cell", "state", *KINDS):
        rows.add_column(name, no_wrap=True)
    for cell in table.cells:
        found = [_progress([states[step.key] for step in cell.of(kind)]) for kind in KINDS]
        rows.add_row(cell.name, cell_state(table, cell), *found)
    console.print(rows)
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
    from eval.study.state import cell_state, failures, state_of

    logs = {step.key: lines for step, lines in failures(table)}
    return {
        "study": table.study.name,
        "folder": table.study.folder,
        "cells": {cell.name: cell_state(table, cell) for cell in table.cells},
        "steps": {
            step.folder: {
                "name": step.name,
                "state": state_of(table.root, step),
                **({"log": logs[step.key]} if step.key in logs else {}),
            }
            for step in table.steps
        },
    }
