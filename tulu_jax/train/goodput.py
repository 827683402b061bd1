"""Where the wall time of a run goes: into steps, and what kept it from them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.files import json_or_none, write_whole

STEPS = "steps"
PHASES: tuple[str, ...] = (
    STEPS,
    "start-up",
    "compile",
    "data wait",
    "checkpoint",
    "held-out",
    "evaluation",
    "profile",
    "restart",
)
"""What time is spent on. `restart`: steps done a second time, and start-up and compilation of
processes that resumed."""


class Clock:
    """Wall time by phase; every moment belongs to exactly one.

    A phase within a phase takes its time from the outer one:

        steps | checkpoint | steps     one second each: {"steps": 2, "checkpoint": 1}
    """

    def __init__(self, spent_s: float = 0.0) -> None:
        """Begins in `start-up`, into which `spent_s` seconds went already."""
        self._spent = dict.fromkeys(PHASES, 0.0)
        self._spent["start-up"] = spent_s
        self._phase, self._since = "start-up", time.perf_counter()

    def switch(self, phase: str) -> str:
        """The phase until now; from now on time belongs to `phase`."""
        now, before = time.perf_counter(), self._phase
        self._spent[before] += now - self._since
        self._phase, self._since = phase, now
        return before

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Inside, time belongs to `name`."""
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def move(self, seconds: float, phase: str) -> None:
        """Takes `seconds` from the present phase and gives them to another."""
        self._spent[self._phase] -= seconds
        self._spent[phase] += seconds

    @property
    def total(self) -> float:
        """Seconds in all until now."""
        return sum(self.seconds().values())

    def seconds(self) -> dict[str, float]:
        """Seconds by phase until now."""
        self.switch(self._phase)
        return dict(self._spent)


class Goodput:
    """`goodput.json` of a run: seconds by phase over all processes that worked on it."""

    def __init__(self, folder: Path, clock: Clock, *, first_step: int) -> None:
        """Takes up what earlier processes kept; steps after `first_step` will be done again."""
        self._path, self._clock, self._first = folder / "goodput.json", clock, first_step
        found = json_or_none(self._path) if first_step else None
        earlier = found if isinstance(found, dict) else {}
        self._earlier = dict.fromkeys(PHASES, 0.0) | earlier.get("seconds", {})
        self._steps = int(earlier.get("steps", 0))
        self.restarts = int(earlier.get("restarts", -1)) + 1
        lost = max(0, int(earlier.get("step", 0)) - first_step)
        again = self._earlier[STEPS] * min(1.0, lost / max(self._steps, 1))
        self._earlier[STEPS] -= again
        self._earlier["restart"] += again
        self._steps -= min(lost, self._steps)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase until now, of this process and those before it."""
        own = self._clock.seconds()
        if self.restarts:
            own["restart"] += own["start-up"] + own["compile"]
            own["start-up"] = own["compile"] = 0.0
        return {phase: self._earlier[phase] + own[phase] for phase in PHASES}

    def keep(self, step: int) -> dict[str, float]:
        """Writes the file, `step` steps being done; the seconds by phase."""
        seconds = self.seconds()
        done = self._steps + step - self._first
        record = {"step": step, "steps": done, "restarts": self.restarts, "seconds": seconds}
        write_whole(self._path, json.dumps(record) + "\n")
        return seconds


def share_in_steps(seconds: Mapping[str, float]) -> float:
    """The part of all seconds that went into steps, from 0 to 1: the goodput."""
    return seconds[STEPS] / max(sum(seconds.values()), 1e-9)


def goodput_sentence(seconds: Mapping[str, float]) -> str:
    """`Goodput 97.5 %: 585 of 600 s in steps; the rest: compile 10.0 s, checkpoint 5.0 s`."""
    rest = sorted(((s, name) for name, s in seconds.items() if name != STEPS), reverse=True)
    shown = ", ".join(f"{name} {s:.1f} s" for s, name in rest if s >= 0.05) or "nothing"
    total = sum(seconds.values())
    return (
        f"Goodput {share_in_steps(seconds):.1%}: {seconds[STEPS]:,.1f} of {total:,.1f} s in steps; "
        f"the rest: {shown}"
    )


def step_time_summary(seconds: list[float], bins: int = 20) -> dict[str, Any]:
    """Quantiles and a histogram of step times in seconds, as JSON values; empty without steps."""
    if not seconds:
        return {}
    counts, edges = np.histogram(seconds, bins=bins)
    names = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    quantiles = {name: float(np.quantile(seconds, share)) for name, share in names.items()}
    return {
        "steps": len(seconds),
        **quantiles,
        "counts": counts.tolist(),
        "edges": [float(edge) for edge in edges],
    }
