"""A thread beside the loop: it says when no step ends any more, and when another process is gone.

A stalled run looks like a slow one until somebody looks. So each process keeps a heartbeat; when no
step has ended for many times the usual, every thread's stack is written to the run folder. And
when another process of the run is gone, a collective may wait for it for ever: this one then says
who it was and ends, so that whoever started the run can start it again.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import json
import os
import re
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import jax
from rich.console import Console

from tulu_jax.console import print_line
from tulu_jax.files import write_whole
from tulu_jax.parallel.hosts import host_names, publish, published

PHASE_LIMIT_S = 1800.0
"""A first step (which compiles), a save, held-out losses or an answer may take this long."""
WINDOW = 64
"""Newest steps whose median is the usual."""
LOST_CONNECTION = re.compile("gloo|nccl|unavailable|connection|socket|deadline|heartbeat", re.I)
"""What errors say that another process's death brings about in this one."""
EXIT_STATUS = 70
"""Of a process that ends because another is gone."""


class Watch:
    """Heartbeat, stall watch and peer watch of one process; use it as a context.

    Nothing is ended for a stall unless `stall_ends`. A process ends itself only when another one
    of the run has been silent for `peer_timeout_s`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        say: Callable[[str], None],
        stall_factor: float = 20.0,
        stall_minimum_s: float = 120.0,
        stall_ends: bool = False,
        peer_timeout_s: float = 60.0,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        """Starts nothing yet.

        Args:
          folder: the run folder; gets `heartbeats/` and, on a stall, `stalls/`.
          say: shows a line to the user.
          stall_factor: a stall is this many times the median step time without a step; 0: never.
          stall_minimum_s: but at least this many seconds.
          stall_ends: end the process on a stall.
          peer_timeout_s: silence of a process that counts as its death; 0: never.
          end: ends the process with a status, whatever its threads wait for.
        """
        self._folder, self._say, self._end = folder, say, end
        self._factor, self._minimum_s = stall_factor, stall_minimum_s
        self._stall_ends, self._peer_timeout_s = stall_ends, peer_timeout_s
        self._process, self._count = jax.process_index(), jax.process_count()
        self._seconds: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._step, self._phase, self._reported = 0, "first step", False
        self._at = time.monotonic()
        self._heard: dict[int, str] = {}
        self._silence: dict[int, float] = {}
        self._beats = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def beat(self, step: int) -> None:
        """A step has ended (or its successor was started, which is as steady)."""
        now = time.monotonic()
        if self._phase == "steps":
            self._seconds.append(now - self._at)
        self._step, self._at, self._phase, self._reported = step, now, "steps", False

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Inside, something other than steps goes on, with a longer limit."""
        after = "between steps" if self._phase == "steps" else self._phase
        self._at, self._phase, self._reported = time.monotonic(), name, False
        try:
            yield
        finally:
            self._at, self._phase, self._reported = time.monotonic(), after, False

    def alive(self) -> None:
        """A phase that takes long has come further."""
        self._at, self._reported = time.monotonic(), False

    @property
    def limit_s(self) -> float:
        """Seconds without a sign of progress that are a stall now."""
        if self._phase != "steps" or not self._seconds:
            return max(PHASE_LIMIT_S, self._minimum_s)
        return max(self._minimum_s, self._factor * statistics.median(self._seconds))

    def __enter__(self) -> Watch:
        """Starts the thread; tells the others that this process is there, so that it is missed."""
        self._at = time.monotonic()
        if self._shared:
            self._look_at_peers(0.0)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the thread; tells the other processes how this one ended.

        A lost connection in one of several processes is mostly the death of another: then it is
        found out whose, before this process ends.
        """
        words = f"{kind.__name__ if kind else ''}: {value}".strip().splitlines()[0]
        if kind is None:
            self._stop("done")
            return
        if self._shared and LOST_CONNECTION.search(str(value)):
            self._say(f"{words}\nLooking for the process that died.")
            self._thread.join(2 * self._peer_timeout_s)
        self._stop(f"failed: {words}")

    @property
    def _shared(self) -> bool:
        return self._count > 1 and self._peer_timeout_s > 0

    def _stop(self, last_word: str) -> None:
        self._closing.set()
        self._thread.join(10)
        with contextlib.suppress(RuntimeError):
            publish("beat", last_word)

    def _run(self) -> None:
        limits = [self._minimum_s, *([self._peer_timeout_s] if self._shared else [])]
        pause = min(5.0, *(limit / 5 for limit in limits))
        before = time.monotonic()
        while not self._closing.wait(pause):
            passed = time.monotonic() - before
            before += passed
            if passed > 2 * pause:  # This very process was stopped, or its machine was.
                self._at += passed - pause
                passed = pause
            self._look_at_steps()
            if self._shared:
                self._look_at_peers(passed)
            self._write_heartbeat()

    def _look_at_steps(self) -> None:
        seconds = time.monotonic() - self._at
        if not self._factor or self._reported or seconds < self.limit_s:
            return
        self._reported = True
        what = (
            f"No step has ended for {seconds:.0f} s (limit {self.limit_s:.0f} s) after step "
            f"{self._step}, during: {self._phase}"
        )
        path = self._dump(what)
        behind = self._behind()
        self._say(f"{what}. Stacks of all threads: {path}{behind}")
        if self._stall_ends:
            self._say("This process ends, as STALL_ENDS_RUN asks.")
            self._end(EXIT_STATUS)

    def _behind(self) -> str:
        steps = {each: _step_of(word) for each, word in self._heard.items()}
        known = {each: step for each, step in steps.items() if step is not None}
        if not known or min(known.values()) == max(known.values()):
            return ""
        last = [each for each, step in known.items() if step == min(known.values())]
        return f". Behind the others, at step {min(known.values())}: process {host_names(last)}"

    def _look_at_peers(self, passed: float) -> None:
        """Adds `passed` seconds to the silence of those who say nothing new.

        Those whose watch has not begun are not timed: JAX ends a run whose process dies so early.
        """
        self._beats += 1
        try:
            publish("beat", f"{self._beats} step {self._step} {self._phase}")
            words = published("beat")
        except RuntimeError as error:
            self._lost([0], f"the coordinator does not answer: {str(error).splitlines()[0]}")
            return
        for each in range(self._count):
            word = words.get(each, "")
            if word and self._heard.get(each) == word != "done":
                self._silence[each] += passed
            else:
                self._heard[each], self._silence[each] = word, 0.0
        failed = [each for each, word in self._heard.items() if word.startswith("failed")]
        if failed:
            self._lost(failed, self._heard[failed[0]])
            return
        silent = [each for each, seconds in self._silence.items() if seconds > self._peer_timeout_s]
        if silent:
            self._lost(silent, f"not heard of for {self._peer_timeout_s:g} s")

    def _lost(self, processes: list[int], why: str) -> None:
        """Says which process is gone, and ends this one."""
        names = host_names(processes)
        steps = [_step_of(self._heard.get(each, "")) for each in processes]
        known = [f"last at step {step}" for step in steps if step is not None]
        what = f"Process {names} is" if len(processes) == 1 else f"Processes {names} are"
        what += f" gone: {why}" + (f", {known[0]}" if known else "")
        path = self._dump(what)
        self._say(
            f"{what}. This process ends too, since steps need all {self._count}. "
            f"Stacks: {path}. The same command resumes from the newest checkpoint."
        )
        self._end(EXIT_STATUS)

    def _dump(self, what: str) -> Path:
        """Where the stacks of all threads were written."""
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-process-{self._process}.txt"
        path = self._folder / "stalls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.write(f"{what}\nprocess {self._process} on {socket.gethostname()}\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        return path

    def _write_heartbeat(self) -> None:
        """Keeps `heartbeats/process-N.json`, for whoever looks from outside."""
        path = self._folder / "heartbeats" / f"process-{self._process}.json"
        found = {
            "step": self._step,
            "phase": self._phase,
            "seconds_since_step": round(time.monotonic() - self._at, 1),
            "time": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        with contextlib.suppress(OSError):  # A full disk is the checkpoint's to report.
            write_whole(path, json.dumps(found))


def alarm(console: Console, text: str) -> None:
    """Prints a line from any process: process 0 to the console, the others to standard error."""
    if jax.process_index() == 0:
        print_line(console, text, "bold red")
    else:
        print(f"process {jax.process_index()}: {text}", file=sys.stderr)


def _step_of(word: str) -> int | None:
    """The step in a heartbeat `COUNT step STEP PHASE`."""
    parts = word.split()
    return int(parts[2]) if len(parts) > 2 and parts[1] == "step" else None
