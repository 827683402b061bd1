"""A trace of a few steps for xprof, in the run folder."""

from __future__ import annotations

from collections.abc import Callable

import jax

from tulu_jax.train.flight import Flight
from tulu_jax.train.goodput import Clock
from tulu_jax.train.run import Run

WARM_UP = 2
"""Steps of a process before the trace: the first compiles, the second fills the pipeline."""


class Profile:
    """Traces `profile_steps` steps of this process into `profile/`, once the first are over."""

    def __init__(
        self, run: Run, clock: Clock, say: Callable[[str], None], *, first_step: int
    ) -> None:
        """Traces nothing when `profile_steps` is 0."""
        self.folder = run.folder / "profile"
        self._count = run.config.profile_steps
        self._start = first_step + WARM_UP
        self._clock, self._say = clock, say
        self._tracing = False

    def turn(self, step: int, flight: Flight) -> None:
        """Starts or ends the trace if it is time, `step` steps being started."""
        if not self._tracing and self._count and step == self._start:
            flight.restart()
            with self._clock.phase("profile"):
                jax.profiler.start_trace(self.folder)
            self._tracing = True
        elif self._tracing and step == self._start + self._count:
            flight.restart()
            self.close()
            self._say(f"Trace of {self._count} steps in {self.folder}: look at it with xprof")

    def close(self) -> None:
        """Ends a trace that is under way."""
        if self._tracing:
            with self._clock.phase("profile"):
                jax.profiler.stop_trace()
            self._tracing = False
