"""How far a study is: what the marker files in its folder say."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tulu_jax.processes import try_lock

if TYPE_CHECKING:
    from eval.study.cells import Cell, Step, Table

DONE, FAILED, LOG, STEP, BUSY = "done.json", "failed.json", "log.txt", "step.json", ".busy"
"""Files of a step's folder: it is finished; it has failed; what its command printed; what it is;
and who holds the lock of this one is at it."""
RUN = "run"
"""Within the folder of a training: its run folder."""
State = Literal["done", "running", "failed", "stopped", "waiting"]


def state_of(root: Path, step: Step) -> State:
    """As its files say; `stopped` where a process was at it that is no more, and left no marker."""
    folder = root / step.folder
    if (folder / DONE).is_file():
        return "done"
    if _is_held(folder / BUSY):
        return "running"
    if (folder / FAILED).is_file():
        return "failed"
    return "stopped" if (folder / LOG).is_file() else "waiting"


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return try_lock(descriptor) is False
    finally:
        os.close(descriptor)


def states_of(table: Table) -> dict[str, State]:
    """The state of every step, by its key."""
    return {step.key: state_of(table.root, step) for step in table.steps}


def cell_state(cell: Cell, every: Mapping[str, State]) -> State:
    """`done` where all steps are; else the first of these that one is: failed, running, stopped.

    `stopped` is one, too, where some are done and nothing is at the others. `every` is the state
    of each step by its key.
    """
    states = {every[step.key] for step in cell.steps}
    if states <= {"done"}:
        return "done"
    if "failed" in states:
        return "failed"
    if "running" in states:
        return "running"
    return "waiting" if states == {"waiting"} else "stopped"


def failures(table: Table) -> list[tuple[Step, list[str]]]:
    """The steps that failed, each with its log's last lines."""
    found = [step for step in table.steps if state_of(table.root, step) == "failed"]
    return [(step, last_lines(table.root / step.folder / LOG)) for step in found]


def last_lines(log: Path, most: int = 10) -> list[str]:
    """The last lines of a log that are not empty; none where it cannot be read."""
    try:
        with open(log, encoding="utf-8", errors="backslashreplace") as stream:
            return list(deque((line.rstrip() for line in stream if line.strip()), most))
    except OSError:
        return []
