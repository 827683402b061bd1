"""Signals that ask a run to stop, and whether its save was in time."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


class Stop:
    """Whether a signal asked the run to stop, which one, and when.

    With several processes all of them stop after the same step: whoever is told to stop tells the
    others through JAX's coordination service, which finds the first step that none has begun.
    """

    def __init__(self, grace_s: float, say: Callable[[str], None]) -> None:
        """Nobody has asked yet; `grace_s` seconds after a signal the machine may be gone.

        `say` is told when the time is up and the save is not done.
        """
        self.name: str | None = None
        self.grace_s = grace_s
        self._at, self._say = 0.0, say
        self._timer: threading.Timer | None = None
        self._shared = jax.process_count() > 1

    def ask(self, name: str) -> None:
        """A signal has come."""
        self.name, self._at = name, time.perf_counter()
        self._timer = threading.Timer(self.grace_s, self._too_late)
        self._timer.daemon = True
        self._timer.start()

    def asked(self, step: int) -> bool:
        """Whether to stop, `step` steps being started; the same answer in every process."""
        if self._shared and self.name is None and _preempted(step):
            self.ask("SIGTERM")
        return self.name is not None

    def saved(self) -> str:
        """How long the save took since the signal, against the grace period."""
        seconds = time.perf_counter() - self._at
        made_it = "within" if seconds <= self.grace_s else "longer than"
        return f"{seconds:.1f} s after the signal, {made_it} the grace of {self.grace_s:g} s"

    def close(self) -> None:
        """Forgets the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _too_late(self) -> None:
        self._say(
            f"{self.grace_s:g} s after {self.name} the checkpoint is not complete: "
            "GRACE_SECONDS are over; should the process be killed now, the same command resumes "
            "from the checkpoint before"
        )


def _preempted(step: int) -> bool:
    try:
        return multihost_utils.reached_preemption_sync_point(step)
    except RuntimeError:  # The service is off: signals then end a process as they do by default.
        return False


@contextlib.contextmanager
def stop_signals(grace_s: float, say: Callable[[str], None]) -> Iterator[Stop]:
    """Inside, SIGTERM and SIGINT ask for a save and a clean end; a second one ends at once.

    With several processes JAX itself listens to SIGTERM, and SIGINT is left alone.
    """
    stop = Stop(grace_s, say)
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, _: Any) -> None:
        stop.ask(signal.Signals(number).name)
        for each, handler in before.items():
            signal.signal(each, handler)

    try:
        for each in () if jax.process_count() > 1 else (signal.SIGTERM, signal.SIGINT):
            before[each] = signal.signal(each, ask)
    except ValueError:  # Not the main thread: whoever runs us there handles signals.
        before.clear()
    try:
        yield stop
    finally:
        stop.close()
        for each, handler in before.items():
            signal.signal(each, handler)
