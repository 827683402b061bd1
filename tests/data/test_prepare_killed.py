"""A prepare that is killed again and again makes, in the end, the store it would have made."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked
from thorough import THOROUGH

from tasks import demo
from tulu_jax.data.parts import PART_CONVERSATIONS

ROOT = Path(__file__).parents[2]
KILLS = 50 if THOROUGH else 20

SCRIPT = """
import json, multiprocessing, os, sys
from tulu_jax.data import parts
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.prepare import prepare

def read(spec, split):
    with open(sys.argv[1]) as lines:
        yield from map(json.loads, lines)

def run(folder, processes):
    options = PrepareOptions(
        tokenizer=sys.argv[2], max_length=256, data_dir=folder, num_processes=int(processes)
    )
    prepare("tulu_dolly", options, reader=read)

parts.PART_CONVERSATIONS = 10
fork = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda _: fork
"""


def write_rows(path, count):
    """Conversations with long answers, so that encoding takes its time."""
    with open(path, "w") as stream:
        for i in range(count):
            messages = [
                {"role": "user", "content": f"Count {i} cups and hats."},
                {"role": "assistant", "content": f"{i} " + "a cup, a red hat, " * 20},
            ]
            print(json.dumps({"dataset": "d", "id": f"d_{i}", "messages": messages}), file=stream)


def start(command):
    """The command in a process group of its own, so that its children can be told."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where a killed process's children say what they tidy up
        process_group=0,
        env=env,
        cwd=ROOT,
    )


def still_running(group):
    """The processes of this group that are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                found.append(stat.parent.name)
    return found


def kill(pid):
    """Kills the process alone; its children are to notice."""
    os.kill(pid, signal.SIGKILL)
    for _ in range(1000):  # no clock: the machine may have been asleep
        if not (left := still_running(pid)):
            return
        time.sleep(0.01)
    raise AssertionError(f"processes {left} outlive their parent")


def content(data_dir):
    """Every file below, but for locks and stamps, by its place."""
    return {
        str(path.relative_to(data_dir)): path.read_bytes()
        for path in sorted(data_dir.rglob("*"))
        if path.is_file() and ".locks" not in path.parts and path.name != ".verified"
    }


def parts(folder):
    """What is kept of a store that is not whole."""
    with contextlib.suppress(FileNotFoundError):  # it is made whole just now
        return set(folder.rglob("*.npz"))
    return set()


@pytest.fixture
def runs(tmp_path):
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, 600)
    forked = Forked(SCRIPT, str(rows), str(demo.TOKENIZER_DIR))
    yield forked
    forked.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")
def test_kills_do_not_show(runs, tmp_path):
    expected = {}
    for processes in (1, 2):
        begun = time.monotonic()
        runs.begin(tmp_path / str(processes), processes)
        assert runs.status() == 0
        took = time.monotonic() - begun
        expected[processes] = content(tmp_path / str(processes))
    assert expected[1] == expected[2] and len(expected[1]) == 3

    moments, folder = random.Random(0), tmp_path / "killed"
    kills = finished = resumed = 0
    while kills < KILLS:
        before, status = parts(folder), None
        resumed += bool(before)
        runs.begin(folder, 2)
        if kills % 2:  # at any time, or once a part is kept, however busy the machine is
            status = runs.status(within_s=moments.uniform(0, took))
        else:
            while status is None and parts(folder) <= before:
                status = runs.status(within_s=0.001)
        if status is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                kill(runs.pid)
            status = runs.status()
        if status == -signal.SIGKILL:
            kills += 1
            continue
        assert status == 0
        assert content(folder) == expected[1]  # and nothing else lies there
        finished += 1
        shutil.rmtree(folder)
    assert resumed > KILLS // 5
    runs.begin(folder, 2)
    assert runs.status() == 0
    assert content(folder) == expected[1]
    print(f"{kills} kills, {resumed} runs went on from parts, {finished + 1} came to the end")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")
def test_kills_while_raw_files_are_read_do_not_show(tmp_path):
    raw = tmp_path / "raw" / "dolly"
    raw.mkdir(parents=True)
    with open(raw / "databricks-dolly-15k.jsonl", "w") as stream:
        for i in range(3 * PART_CONVERSATIONS):
            row = {"instruction": f"Count {i}", "context": "", "response": f"{i} cups. " * 20}
            print(json.dumps(row), file=stream)

    def begin(folder):
        command = [sys.executable, "-m", "tulu_jax", "data", "prepare", "tulu_dolly"]
        command += ["--tokenizer", str(demo.TOKENIZER_DIR), "--raw_dir", str(raw.parent)]
        command += ["--data_dir", str(folder), "--max_length", "256", "--num_processes", "2"]
        return start(command), time.monotonic()

    process, begun = begin(tmp_path / "undisturbed")
    process.communicate()
    assert process.returncode == 0
    took = time.monotonic() - begun
    moments, folder = random.Random(1), tmp_path / "killed"
    for _ in range(4):
        process, _ = begin(folder)
        time.sleep(moments.uniform(0.3, 0.95) * took)
        kill(process.pid)
        process.communicate()
    process, _ = begin(folder)
    process.communicate()
    assert process.returncode == 0
    got, expected = content(folder), content(tmp_path / "undisturbed")
    assert got.keys() == expected.keys()
    stores = [name for name in got if name.startswith("tulu_dolly")]
    assert len(stores) == 3 and all(got[name] == expected[name] for name in stores)
