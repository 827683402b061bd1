"""The limits of one program: time, memory, files, processes; and where its output goes."""

from __future__ import annotations

import contextlib
import io
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any


class OutOfTime(Exception):
    """The program has used up its time. An `Exception`, as in the reference."""


class _OwnTime:
    """Seconds that this process ran or slept of its own accord.

    That is the time on the clock less the time it waited for a core, so that a busy machine takes
    nothing away from a program, and one that sleeps runs out of time all the same.
    """

    def __init__(self) -> None:
        self._file = -1
        with contextlib.suppress(OSError):  # a kernel without: then the clock alone counts
            self._file = os.open("/proc/self/schedstat", os.O_RDONLY)
        self._waited, self._clock, self._read = 0.0, time.monotonic, os.pread

    def __call__(self) -> float:
        with contextlib.suppress(OSError, IndexError, ValueError):  # the program may close files
            self._waited = int(self._read(self._file, 100, 0).split()[1]) / 1e9
        return self._clock() - self._waited


class TimeLimit:
    """So many seconds of a process's own time, for all that is run under it together."""

    def __init__(self, seconds: float) -> None:
        """All of it is left."""
        self.left = seconds
        self._own_time = _OwnTime()
        self._started = 0.0

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function gives.

        Raises: OutOfTime within it, or before it when no time is left; what the function raises.
        """
        if self.left <= 0:
            raise OutOfTime("Timed out!")
        self._started = self._own_time()
        signal.signal(signal.SIGALRM, self._rung)
        signal.setitimer(signal.ITIMER_REAL, self.left)
        try:
            return function(*arguments)
        finally:
            with contextlib.suppress(TypeError):  # where the program took setitimer away
                _setitimer(signal.ITIMER_REAL, 0)
            self.left -= self._own_time() - self._started

    def _rung(self, *_: object) -> None:
        left = self.left - (self._own_time() - self._started)
        if left <= 0.001:
            raise OutOfTime("Timed out!")
        _setitimer(signal.ITIMER_REAL, left)


_setitimer = signal.setitimer


def set_limits(limits: dict[str, Any], *, cpu_s: float) -> None:
    """Sets what the kernel enforces for this process and each of its children.

    Raises: OSError; ValueError when a limit is above what this process may have.
    """
    seconds = math.ceil(cpu_s)
    for name, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        hard = resource.getrlimit(name)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (most, most))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as stream:
        stream.write("1000")  # where memory runs out, it is this process that ends


class _Nowhere(io.StringIO):
    """Output that is thrown away, and input that is an error, as in the reference."""

    def write(self, text: str, /) -> int:
        return len(text)

    def read(self, *_: Any) -> Any:
        raise OSError

    readline = readlines = read

    def readable(self) -> bool:
        return False


def silence() -> None:
    """Points the program's input and output nowhere, in Python and below it."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)
    sys.stdin = sys.stdout = sys.stderr = _Nowhere()
