"""A run folder belongs to one run: by locks, and where there are none, by signs of life."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

from tulu_jax.checkpoint import owner
from tulu_jax.checkpoint.arrays import save_params
from tulu_jax.checkpoint.owner import OWNER_FILE, owned
from tulu_jax.errors import ConfigError

GOES_ON = (
    r"run folder belongs to another run that is going on - got process \d+ on .*, started .* "
    r"at .*run - expected one run a folder - set another MODEL_DIR, or end that process first"
)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(owner, "BEAT_S", 0.05)
    monkeypatch.setattr(owner, "WATCH_S", 0.6)


@pytest.fixture
def no_locks(monkeypatch, quick):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def record_of(folder):
    return json.loads((folder / OWNER_FILE).read_text())


def write_record(folder, **fields):
    folder.mkdir(exist_ok=True)
    record = {
        "owner": "x",
        "process": 1,
        "host": "far",
        "machine": "far",
        "since": "then",
        **fields,
    }
    (folder / OWNER_FILE).write_text(json.dumps(record).ljust(512))


def refused(folder):
    with pytest.raises(ConfigError, match=GOES_ON), owned(folder):
        raise AssertionError("taken")


def test_a_second_owner_is_refused_and_told_of_the_first(tmp_path):
    with owned(tmp_path / "run"):
        before = record_of(tmp_path / "run")
        assert before["process"] == os.getpid()
        refused(tmp_path / "run")
        assert record_of(tmp_path / "run")["owner"] == before["owner"]
    with owned(tmp_path / "run", say=pytest.fail):  # it ended well: nothing to take over
        pass


@contextlib.contextmanager
def lock_held(folder, record):
    """The lock of another process that has not written yet: the file is as it was before."""
    folder.mkdir(exist_ok=True)
    (folder / OWNER_FILE).write_text(json.dumps(record).ljust(512) if record else "")
    descriptor = os.open(folder / OWNER_FILE, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def of_one_gone():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return {"owner": "x", "process": gone.pid, "machine": owner._machine()}


@pytest.mark.parametrize("before", [dict, of_one_gone], ids=["nobody", "one that was killed"])
def test_a_refusal_names_the_owner_that_has_only_just_come(tmp_path, before):
    now = {"owner": "y", "process": os.getpid(), "host": "here", "since": "now"}
    record = json.dumps({**now, "machine": owner._machine()}).ljust(512).encode()
    with lock_held(tmp_path / "run", before()) as descriptor:
        write = threading.Timer(0.3, os.pwrite, (descriptor, record, 0))
        write.start()
        named = pytest.raises(ConfigError, match=f"process {os.getpid()} on here, started now")
        with named, owned(tmp_path / "run"):
            raise AssertionError("taken")
        write.join()


def test_a_folder_that_is_just_being_left_can_be_had(tmp_path):
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(lock_held(tmp_path / "run", {}))
        timer = threading.Timer(0.3, leaving.close)
        timer.start()
        with owned(tmp_path / "run", say=pytest.fail):
            assert record_of(tmp_path / "run")["process"] == os.getpid()
        timer.join()


def test_an_owner_that_never_says_who_it_is_is_refused_all_the_same(tmp_path, quick):
    with lock_held(tmp_path / "run", {}):
        unknown = pytest.raises(ConfigError, match="process unknown on a host unknown")
        with unknown, owned(tmp_path / "run"):
            raise AssertionError("taken")


def test_an_owner_of_another_host_that_lives_is_refused(tmp_path, quick):
    """Locks that are not shared between hosts: the file grows on."""
    write_record(tmp_path / "run")
    going_on = multiprocessing.get_context("forkserver").Process(
        target=grow, args=(str(tmp_path / "run"),)
    )
    going_on.start()
    try:
        end = time.monotonic() + 30
        while record_of(tmp_path / "run").get("beat", 0) == 0 and time.monotonic() < end:
            time.sleep(0.01)
        refusal = pytest.raises(ConfigError, match="process 1 on far, started then")
        with refusal, owned(tmp_path / "run"):
            raise AssertionError("taken")
    finally:
        going_on.kill()
        going_on.join()
    said = []
    with owned(tmp_path / "run", say=said.append):
        assert record_of(tmp_path / "run")["process"] == os.getpid()
    assert said == [
        f"Taking over {tmp_path / 'run'}: process 1 on far, started then is gone and had not "
        "ended its run"
    ]


def grow(folder):
    for beat in range(10_000):
        with open(os.path.join(folder, OWNER_FILE), "r+b") as stream:
            record = {"owner": "x", "process": 1, "host": "far", "since": "then", "beat": beat}
            stream.write(json.dumps(record).ljust(512).encode())
        time.sleep(0.05)


def test_without_locks_a_living_owner_is_refused(tmp_path, no_locks):
    with owned(tmp_path / "run"):
        refused(tmp_path / "run")
    with owned(tmp_path / "run", say=pytest.fail):
        pass


def test_without_locks_the_last_of_two_that_came_at_once_stays(tmp_path, no_locks, monkeypatch):
    slept = time.sleep

    def another_writes(seconds):
        write_record(tmp_path / "run", owner="later")
        slept(seconds)

    monkeypatch.setattr(time, "sleep", another_writes)
    refused_by = r"belongs to another run .* process 1 on far"
    with pytest.raises(ConfigError, match=refused_by), owned(tmp_path / "run"):
        raise AssertionError("taken")


@pytest.mark.parametrize("text", ["", "{", "[]", "\0\0"])
def test_a_file_that_says_nothing_is_nobodys(tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / OWNER_FILE).write_text(text)
    with owned(tmp_path / "run", say=pytest.fail):
        assert record_of(tmp_path / "run")["process"] == os.getpid()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    refusal = pytest.raises(ConfigError, match=r"run folder cannot be written - got .* at .*/run")
    with refusal, owned(tmp_path / "file" / "run"):
        raise AssertionError("taken")


def test_nothing_is_imported_into_the_folder_of_a_run_that_goes_on(tmp_path):
    """Before its first checkpoint the run could not be told from an empty folder."""
    with owned(tmp_path / "run"):
        with pytest.raises(ConfigError, match=GOES_ON):
            save_params(tmp_path / "run", {}, {})
        assert sorted(os.listdir(tmp_path / "run")) == [OWNER_FILE]
