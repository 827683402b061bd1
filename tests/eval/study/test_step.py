"""A step as a program: its log, its markers, and steps that were killed."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from eval.study.step import INCOMPLETE, is_trained, main, run_step
from tulu_jax.errors import DataError

PYTHON = (sys.executable, "-c")


@pytest.fixture
def step(tmp_path):
    def make(kind="evaluate", argv=()):
        folder = tmp_path / kind / "0123"
        folder.mkdir(parents=True, exist_ok=True)
        said = {"kind": kind, "name": "small", "argv": list(argv)}
        (folder / "step.json").write_text(json.dumps(said))
        return folder

    return make


def checkpoint(run, step, total):
    folder = run / "checkpoints" / str(step) / "meta"
    folder.mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"total_steps": total}))


def test_a_step_runs_in_the_studys_folder_and_leaves_log_and_marker(step, tmp_path, capfd):
    folder = step(argv=["a b"])
    code = "import os, sys; print(os.getcwd(), sys.argv[1]); print('x', file=sys.stderr)"
    assert run_step(folder, (*PYTHON, code)) == 0
    assert sorted((folder / "log.txt").read_text().split("\n")) == ["", f"{tmp_path} a b", "x"]
    done = json.loads((folder / "done.json").read_text())
    assert (done["status"], done["seconds"] >= 0) == (0, True)
    assert capfd.readouterr().err.startswith("evaluate small: begun\nevaluate small: done in ")


def test_a_step_may_be_handed_to_a_program(step):
    folder = step(argv=["a b"])
    said = json.loads((folder / "step.json").read_text())
    code = "import sys; print(sys.argv[1:])"
    (folder / "step.json").write_text(json.dumps({**said, "program": [*PYTHON, code, "--"]}))
    assert run_step(folder, ("tulu",)) == 0
    assert (folder / "log.txt").read_text() == "['--', 'tulu', 'a b']\n"


def test_a_step_that_failed_is_run_again_and_one_that_is_done_is_not(step, capfd):
    folder = step()
    assert run_step(folder, (*PYTHON, "print('why'); raise SystemExit(3)")) == 3
    assert not (folder / "done.json").exists()
    assert json.loads((folder / "failed.json").read_text())["status"] == 3
    assert f"failed with status 3, see {folder / 'log.txt'}" in capfd.readouterr().err
    assert run_step(folder, (*PYTHON, "print('now')")) == 0
    assert not (folder / "failed.json").exists()
    assert run_step(folder, (*PYTHON, "raise SystemExit(3)")) == 0
    assert (folder / "log.txt").read_text() == "now\n"


def test_a_killed_command_has_its_signal_as_status(step):
    code = "import os; os.kill(os.getpid(), 9)"
    assert run_step(step(), (*PYTHON, code)) == 137


def test_training_is_done_at_its_last_step(step):
    folder = step("train")
    assert run_step(folder, (*PYTHON, "")) == INCOMPLETE
    checkpoint(folder / "run", 3, 10)
    assert run_step(folder, (*PYTHON, "")) == INCOMPLETE
    assert (folder / "failed.json").exists()
    checkpoint(folder / "run", 10, 10)
    assert is_trained(folder / "run")
    assert run_step(folder, (*PYTHON, "")) == 0


def test_a_step_that_another_process_is_at_is_waited_for(step, capfd):
    folder = step()
    held = os.open(folder / ".busy", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    thread = threading.Thread(target=lambda: _end(folder, held))
    thread.start()
    assert main([str(folder)]) == 0
    thread.join()
    assert capfd.readouterr().err == "evaluate small: waiting for the process that is at it\n"
    assert not (folder / "log.txt").exists()


def _end(folder, held):
    time.sleep(0.3)
    (folder / "done.json").write_text("{}")
    os.close(held)


def test_sigterm_reaches_the_command(step):
    folder = step()
    (folder / "step.json").write_text(json.dumps({
        "kind": "evaluate", "name": "x", "argv": [],
    }))  # fmt: skip
    wait = "import signal, sys; signal.signal(15, lambda *_: sys.exit(9)); print(1, flush=True)"
    code = (
        "import sys; from pathlib import Path; from eval.study.step import run_step;"
        f"sys.exit(run_step(Path({str(folder)!r}), (sys.executable, '-c', "
        f"{wait + '; signal.pause()'!r})))"
    )
    process = subprocess.Popen([*PYTHON, code], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (folder / "log.txt").exists() and (folder / "log.txt").read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 9
    assert json.loads((folder / "failed.json").read_text())["status"] == 9


def test_a_folder_without_a_step_is_named(tmp_path):
    with pytest.raises(DataError, match=r"step.json is missing - got at|step.json is missing"):
        run_step(tmp_path)
