"""A step as a program: one `tulu` command, its log, and the marker of its end.

    python -m eval.study.step FOLDER

FOLDER holds step.json; paths in its command are relative to the study's folder, two above.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.study.far import hand_in, hand_in_failure, take
from eval.study.state import BUSY, DONE, FAILED, LOG, RUN, STEP
from tulu_jax.console import visible
from tulu_jax.errors import DataError
from tulu_jax.files import json_or_none, read_json, write_json
from tulu_jax.places import Address, Place, user_place
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
        far = _far(step, folder)
        if take(far, folder) if far else (folder / DONE).exists():
            return 0
        (folder / FAILED).unlink(missing_ok=True)
        _say(f"{what}: begun")
        begun = time.time()
        with open(folder / LOG, "wb") as log:
            command = [*step.get("program", ()), *program, *step["argv"]]
            status = _call(command, folder.parent.parent, log, held)
        run = (far or folder) / RUN
        if status == 0 and step["kind"] == "train" and not is_trained(run):
            status = INCOMPLETE
        seconds = round(time.time() - begun, 1)
        status = _finish(folder, far, status, seconds)
    how = f"failed with status {status}, see {folder / LOG}" if status else f"done in {seconds} s"
    _say(f"{what}: {how}")
    return status


def _far(step: Mapping[str, Any], folder: Path) -> Address | None:
    """Where the step's folder lies in a bucket; None of a study on this machine."""
    if "home" not in step:
        return None
    home = user_place(step["home"], name="STUDY_DIR")
    assert isinstance(home, Address)
    return home / f"{folder.parent.name}/{folder.name}"


def _finish(folder: Path, far: Address | None, status: int, seconds: float) -> int:
    """Leaves the marker of the step's end, in the bucket first; its exit status."""
    said = {"status": status, "seconds": seconds, "ended": round(time.time(), 3)}
    if far is not None and status == 0:
        try:
            hand_in(folder, far, json.dumps(said))
            return 0
        except OSError as error:
            status = said["status"] = INCOMPLETE
            with open(folder / LOG, "a") as log:
                print(f"done, but it cannot be handed in: {error}", file=log)
    write_json(folder / (FAILED if status else DONE), said, durable=True)
    if far is not None:
        with contextlib.suppress(OSError):  # it is for others to see
            hand_in_failure(folder, far)
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


def is_trained(run: Place) -> bool:
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
