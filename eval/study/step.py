"""A step as a program: one `tulu` command, its log, and the marker of its end.

    python -m eval.study.step FOLDER

FOLDER holds step.json; paths in its command are relative to the study's folder, two above.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.study.state import BUSY, DONE, FAILED, LOG, STEP
from tulu_jax.console import visible
from tulu_jax.errors import DataError
from tulu_jax.files import json_or_none, read_json, write_json
from tulu_jax.processes import try_lock

TULU = (sys.executable, "-m", "tulu_jax")
INCOMPLETE = 75
"""Exit status of a training that saved and stopped before its end (EX_TEMPFAIL of sysexits.h)."""


def run_step(folder: Path, program: Sequence[str] = TULU) -> int:
    """Runs the step's command; its exit status, and `INCOMPLETE` for a training told to stop.

    `done.json` is there afterwards if it is 0, else `failed.json`. A step that another process
    runs is waited for, and not run again if it was done there.

    Raises: DataError for a folder without a step.
    """
    step = read_json(folder / STEP, DataError, expected="a step's folder")
    what = visible(f"{step['kind']} {step['name']}")
    with _alone(folder, what) as held:
        if (folder / DONE).exists():
            return 0
        (folder / FAILED).unlink(missing_ok=True)
        _say(f"{what}: begun")
        begun = time.time()
        with open(folder / LOG, "wb") as log:
            command = [*step.get("program", ()), *program, *step["argv"]]
            status = _call(command, folder.parent.parent, log, held)
        if status == 0 and step["kind"] == "train" and not is_trained(folder / "run"):
            status = INCOMPLETE
        seconds = round(time.time() - begun, 1)
        said: dict[str, Any] = {"status": status, "seconds": seconds}
        write_json(folder / (FAILED if status else DONE), said, durable=True)
    how = f"failed with status {status}, see {folder / LOG}" if status else f"done in {seconds} s"
    _say(f"{what}: {how}")
    return status


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _alone(folder: Path, what: str) -> Iterator[int]:
    """Holds the step's lock, which its command keeps should this process be killed."""
    held = os.open(folder / BUSY, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if try_lock(held) is False:
            _say(f"{what}: waiting for the process that is at it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield held
    finally:
        os.close(held)


def _call(command: Sequence[str], root: Path, log: Any, held: int) -> int:
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        pass_fds=(held,),
    )  # fmt: skip
    with _passing_on(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Inside, SIGTERM goes to the command, which saves what it has; a terminal's Ctrl-C does so."""
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda n, _: process.send_signal(n)),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_trained(run: Path) -> bool:
    """Whether the newest checkpoint of a run folder is that of its last step."""
    steps = [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
    if not steps:
        return False
    meta = json_or_none(run / "checkpoints" / str(max(steps)) / "meta" / "metadata")
    return isinstance(meta, dict) and meta.get("total_steps") == max(steps)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the step whose folder is named; its exit status."""
    (folder,) = sys.argv[1:] if argv is None else argv
    return run_step(Path(os.path.abspath(folder)))


if __name__ == "__main__":
    sys.exit(main())
