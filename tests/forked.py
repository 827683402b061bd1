"""Runs that start in milliseconds: forked one after the other from a process that imported all."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVE = """
import os, sys
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setpgid(0, 0)
            os.dup2(2, 1)
            status = run(*line.split()) or 0
        finally:
            os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forked:
    """One run after the other; each is a process group of its own, and says nothing."""

    def __init__(self, code: str, *arguments: str) -> None:
        """`code` imports what runs need and defines `run`, whose result is their exit status.

        Its processes find the arguments in `sys.argv`.
        """
        self._server = subprocess.Popen(
            [sys.executable, "-c", code + SERVE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where a killed process's children say what they tidy up
            bufsize=0,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        self.pid = 0

    def begin(self, *words: object) -> None:
        """A run of `run(*words)`, once the one before has ended; no word has a space."""
        self._server.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.pid = int(self._server.stdout.readline())

    def status(self, within_s: float = 200) -> int | None:
        """How the run ended, or None while it lasts."""
        if select.select([self._server.stdout], [], [], within_s)[0]:
            return int(self._server.stdout.readline())
        return None

    def kill(self) -> None:
        """Kills the run's own process, if it has not ended just now."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process that forks."""
        self._server.stdin.close()
        assert self._server.wait() == 0
        self._server.stdout.close()
