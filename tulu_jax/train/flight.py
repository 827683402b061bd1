"""Steps that the host has started and the devices have not finished."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax

AHEAD = 2
"""Unfinished steps that the host leaves behind it: enough that the devices never wait for it, few
enough that a signal is heeded soon."""


@dataclasses.dataclass
class Row:
    """One step's metrics."""

    step: int
    metrics: dict[str, Any]
    """On the devices until fetched; then floats."""
    done_at: float | None = None
    seconds: float | None = None
    """From the end of the step before; None when something else lay between."""
    update: int = 0
    """Which update of the weights this step is, from 1; skipped steps are none."""
    skipped: str | None = None
    """What to say of a step that was skipped."""


class Flight:
    """The newest steps, oldest first, each stamped when the devices have finished it.

    Metrics stay on the devices until `fetch`, which takes those of many steps at once.
    """

    def __init__(self) -> None:
        """Nothing has been started."""
        self._rows: list[Row] = []
        self._last: float | None = None

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        """Takes a step just started; returns when at most AHEAD steps are unfinished."""
        self._rows.append(Row(step, metrics))
        self._stamp(self._rows[:-AHEAD])

    @property
    def idle(self) -> bool:
        """Whether the devices have finished everything they were given."""
        return not self._rows or self._rows[-1].metrics["loss"].is_ready()

    def fetch(self, step: int) -> list[Row]:
        """The steps up to `step` not fetched before, as floats; waits for them."""
        rows = [row for row in self._rows if row.step <= step]
        self._rows = self._rows[len(rows) :]
        self._stamp(rows)
        for row, values in zip(rows, jax.device_get([row.metrics for row in rows]), strict=True):
            row.metrics = {name: float(value) for name, value in values.items()}
        return rows

    def restart(self) -> None:
        """Waits for all steps; the next one is timed from now on."""
        self._stamp(self._rows)
        self._last = time.perf_counter()

    def _stamp(self, rows: list[Row]) -> None:
        for row in rows:
            if row.done_at is None:
                jax.block_until_ready(row.metrics)
                row.done_at = time.perf_counter()
                row.seconds = None if self._last is None else row.done_at - self._last
                self._last = row.done_at
