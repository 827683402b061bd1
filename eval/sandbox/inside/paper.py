"""The reference's program: completion and test in one process, what it gives told as it tells it.

Source: openai/human-eval, `human_eval/execution.py`; the same in open-instruct's
`eval/codex_humaneval/execution.py`. A program can here pretend that it has passed, as it can there.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .limits import OutOfTime, TimeLimit

MOST_LETTERS = 2000
_TAKEN_AWAY = (
    "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames"
    " truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir"
)
_MISSING_MODULES = ("ipdb", "joblib", "resource", "psutil", "tkinter")


def take_away() -> None:
    """Replaces by None the functions and modules that the reference's guard replaces."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _TAKEN_AWAY.split():
        setattr(os, name, None)
    for name in ("rmtree", "move", "chown"):
        setattr(shutil, name, None)
    subprocess.Popen = None  # type: ignore
    for name in ("exit", "quit", "help"):
        setattr(builtins, name, None)
    for name in _MISSING_MODULES:
        sys.modules[name] = None  # type: ignore


def prepare(job: dict[str, Any], own: list[int]) -> Callable[[], None]:
    """A function that runs the program and sends what it gave to the verdict's descriptor."""
    write, nonce, program = os.write, job["nonce"], job["program"]
    limit = TimeLimit(job["timeout_s"])
    take_away()

    def run() -> None:
        try:
            limit.run(exec, program, {})
            result = "passed"
        except OutOfTime:
            result = "timed out"
        except BaseException as error:
            result = f"failed: {error}"[:MOST_LETTERS]
        write(own[0], json.dumps({"nonce": nonce, "result": result}).encode() + b"\n")

    return run
