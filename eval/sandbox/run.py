"""Programs run in parallel: a pool of sandboxes, and what is done when the machinery fails."""

from __future__ import annotations

import queue
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from eval.sandbox import worker
from eval.sandbox.isolation import ENVIRONMENT, WITHOUT, Isolation, choose
from eval.sandbox.programs import MODES, Limits, Mode, Outcome, Program, SandboxError
from tulu_jax.errors import ConfigError
from tulu_jax.processes import all_cores

PACKAGES = ("numpy",)
"""What is bound into the sandboxes where a program or a test names it."""
TRIES = 2
Progress = Callable[[int, Outcome], None]


def run_programs(
    programs: Sequence[Program],
    *,
    mode: Mode = "fixed",
    timeout_s: float = 3.0,
    workers: int | None = None,
    limits: Limits | None = None,
    allow_unsafe_execution: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """What came of each program, in order.

    Args:
      programs: what is run.
      mode: `paper`, candidate and test in one process as in the reference; or `fixed`, in two
        sandboxes that tell each other plain data, so that no candidate can pretend.
      timeout_s: seconds of its own time (running or sleeping, not waiting for a core) that a
        candidate has in all; above 0.
      workers: programs at a time; by default one a core.
      limits: of each program.
      allow_unsafe_execution: run with the rights of this process where bubblewrap is missing or
        does not isolate; `Outcome.isolation` then says so.
      progress: called with the index and the outcome of each program, as they come, by one
        thread at a time.

    Raises:
      ConfigError: an unknown mode, or numbers out of range.
      SandboxError: nothing can be isolated here, or the isolation does not hold. A failure with
        one program is tried again, and is then its outcome's `error: ...`.
    """
    if mode not in MODES:
        raise ConfigError("unknown mode", got=repr(mode), expected=" or ".join(MODES))
    if not timeout_s > 0:
        raise ConfigError("timeout_s is out of range", got=timeout_s, expected="a number above 0")
    if workers is not None and workers < 1:
        raise ConfigError("workers is out of range", got=workers, expected="1 or more")
    if not programs:
        return []
    isolation = choose(allow_unsafe_execution=allow_unsafe_execution)
    preload = [name for name in PACKAGES if _named(name, programs)]
    limits = limits or Limits()
    allow = allow_unsafe_execution
    pool = _Pool(programs, mode, timeout_s, limits, isolation, allow, preload, progress)
    return pool.run(min(workers or all_cores(), len(programs)))


def _named(package: str, programs: Sequence[Program]) -> bool:
    pattern = re.compile(rf"\b{package}\b")
    return any(pattern.search(program.code) or pattern.search(program.test) for program in programs)


class _Pool:
    """Threads that each drive their own sandboxes and take programs from one queue."""

    def __init__(
        self,
        programs: Sequence[Program],
        mode: Mode,
        timeout_s: float,
        limits: Limits,
        isolation: Isolation,
        allow_unsafe: bool,
        preload: Sequence[str],
        progress: Progress | None,
    ) -> None:
        self._programs, self._mode = programs, mode
        self._timeout_s, self._limits = timeout_s, limits
        self._isolation, self._allow_unsafe = isolation, allow_unsafe
        self._preload, self._progress = preload, progress
        self._outcomes: list[Outcome | None] = [None] * len(programs)
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(programs)):
            self._waiting.put(index)
        self._lock = threading.Lock()
        self._fault: BaseException | None = None

    def run(self, workers: int) -> list[Outcome]:
        """The outcomes. Raises: SandboxError; what `progress` raises; KeyboardInterrupt."""
        try:
            probed = self._start_checked()
        except SandboxError:
            if not self._allow_unsafe:
                raise
            self._isolation = WITHOUT
            probed = self._start()
        threads = [threading.Thread(target=self._work, args=(probed,), daemon=True)]
        threads += [
            threading.Thread(target=self._work, args=(None,), daemon=True)
            for _ in range(workers - 1)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:
            self._fault = error
            raise
        if self._fault is not None:
            raise self._fault
        return [outcome for outcome in self._outcomes if outcome is not None]

    def _start_checked(self) -> dict[str, worker.Sandbox]:
        probed = self._start()
        try:
            check_isolation(next(iter(probed.values())))
        except BaseException:
            _close(probed)
            raise
        return probed

    def _start(self) -> dict[str, worker.Sandbox]:
        roles = ("paper",) if self._mode == "paper" else ("candidate", "checker")
        started: dict[str, worker.Sandbox] = {}
        try:
            for role in roles:
                started[role] = worker.Sandbox(self._isolation, self._preload)
            for sandbox in started.values():
                sandbox.wait()
        except BaseException:
            _close(started)
            raise
        return started

    def _work(self, sandboxes: dict[str, worker.Sandbox] | None) -> None:
        try:
            while self._fault is None:
                try:
                    index = self._waiting.get_nowait()
                except queue.Empty:
                    return
                outcome, sandboxes = self._outcome(self._programs[index], sandboxes)
                with self._lock:
                    self._outcomes[index] = outcome
                    if self._progress is not None and self._fault is None:
                        self._progress(index, outcome)
        except BaseException as error:
            self._fault = self._fault or error
        finally:
            _close(sandboxes or {})

    def _outcome(
        self, program: Program, sandboxes: dict[str, worker.Sandbox] | None
    ) -> tuple[Outcome, dict[str, worker.Sandbox] | None]:
        """The outcome, and the sandboxes for the next program: new ones after a failure."""
        fault: Exception | None = None
        for _ in range(TRIES):
            try:
                sandboxes = sandboxes or self._start()
                return self._run(program, sandboxes), sandboxes
            except SandboxError as error:
                fault = error
                _close(sandboxes or {})
                sandboxes = None
        return Outcome(f"error: {fault}", None, 0.0, self._isolation.name), None

    def _run(self, program: Program, sandboxes: dict[str, worker.Sandbox]) -> Outcome:
        if self._mode == "paper":
            return worker.run_paper(sandboxes["paper"], program, self._timeout_s, self._limits)
        return worker.run_fixed(sandboxes, program, self._timeout_s, self._limits)


def _close(sandboxes: dict[str, worker.Sandbox]) -> None:
    for sandbox in sandboxes.values():
        sandbox.close()


def check_isolation(sandbox: worker.Sandbox) -> None:
    """Tries from within what a program must not reach, and returns when it reached nothing.

    Without isolation nothing is tried.

    Raises: SandboxError, naming what was reached.
    """
    isolation = sandbox.isolation
    if isolation.bwrap is None:
        return
    with tempfile.NamedTemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as server:
        job: dict[str, Any] = {
            "environment": [*ENVIRONMENT, "PWD", "LC_CTYPE"],
            "file": file.name,
            "port": server.getsockname()[1],
        }
        told = worker.settings(isolation, Limits(), job, 10.0)
        said, _ = worker.run_job({"probe": sandbox}, {"probe": told}, 60.0)
    if said is None or said.get("reached") != []:
        reached = "nothing was said" if said is None else ", ".join(map(str, said["reached"]))
        raise SandboxError(
            "the sandbox does not isolate",
            got=reached,
            at=isolation.name,
            expected="none of it to be reached from within",
            do="see docs/sandbox.md",
        )
