"""What the watchdog says and writes when steps stop ending or another process is gone."""

import contextlib
import json
import time

import jax
import pytest
from rich.console import Console

from tulu_jax.errors import DataError
from tulu_jax.train import watchdog
from tulu_jax.train.watchdog import EXIT_STATUS, Watch, alarm


class Ended(Exception):
    """In place of the end of the process."""


class Peers:
    """What the others of three processes publish."""

    def __init__(self, monkeypatch):
        self.words = {1: "1 step 5 steps", 2: "1 step 3 steps"}
        self.mine = []
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        monkeypatch.setattr(watchdog, "publish", lambda key, word: self.mine.append(word))
        monkeypatch.setattr(watchdog, "published", self.published)
        monkeypatch.setattr(
            watchdog, "host_names", lambda found: ", ".join(f"{each} (node)" for each in found)
        )

    def published(self, key):
        if isinstance(self.words, RuntimeError):
            raise self.words
        return {**self.words, 0: f"{len(self.mine)}"}


@pytest.fixture
def watched(tmp_path):
    """A maker of watches, and what they said and how they ended."""
    said, ended = [], []

    def make(**options):
        fast = {"stall_minimum_s": 0.05, "stall_factor": 2.0, "peer_timeout_s": 0.2}
        return Watch(tmp_path, say=said.append, end=ended.append, **{**fast, **options})

    make.said, make.ended, make.folder = said, ended, tmp_path
    return make


def wait_for(found, seconds=120.0):
    """Returns when `found()` holds; the machine may be busy."""
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_stall_is_said_once_and_stacks_are_written(watched):
    with watched(stall_minimum_s=0.5) as watch:
        for step in (1, 2, 3):
            watch.beat(step)
        wait_for(lambda: watched.said)
        time.sleep(0.7)
    assert len(watched.said) == 1 and not watched.ended
    assert "No step has ended for" in watched.said[0] and "after step 3" in watched.said[0]
    (path,) = (watched.folder / "stalls").iterdir()
    assert path.name in watched.said[0]
    text = path.read_text()
    assert "process 0 on" in text and "test_a_stall_is_said_once" in text


def test_heartbeat_tells_the_step(watched):
    path = watched.folder / "heartbeats" / "process-0.json"
    with watched(stall_factor=0.0) as watch:
        watch.beat(7)
        wait_for(lambda: path.exists() and json.loads(path.read_text())["step"] == 7)
    found = json.loads(path.read_text())
    assert found["phase"] == "steps" and found["pid"] > 0
    assert not watched.said


def test_limits(watched):
    watch = watched(stall_minimum_s=0.001)
    assert watch.limit_s == watchdog.PHASE_LIMIT_S  # the first step compiles
    with watch.phase("restore"):
        assert watch._phase == "restore"
    assert watch._phase == "first step"
    watch.beat(1)
    watch.beat(2)
    watch._seconds.extend([3.0, 3.0, 100.0])
    assert watch.limit_s == 6.0
    with watch.phase("held-out"):
        assert watch.limit_s == watchdog.PHASE_LIMIT_S
    assert watch.limit_s == watchdog.PHASE_LIMIT_S
    watch.beat(3)
    assert watch.limit_s == 6.0 and 0 < len(watch._seconds) < 6


def test_a_stall_may_end_the_process(watched):
    with watched(stall_ends=True) as watch:
        watch.beat(1)
        watch.beat(2)
        wait_for(lambda: watched.ended)
    assert watched.ended == [EXIT_STATUS] and "STALL_ENDS_RUN" in watched.said[1]


def test_a_silent_process_is_named_and_ends_this_one(watched, monkeypatch):
    peers = Peers(monkeypatch)

    def beating(key):
        peers.words[1] = f"{len(peers.mine)} step 6 steps"
        return peers.published(key)

    monkeypatch.setattr(watchdog, "published", beating)
    with watched(stall_factor=0.0):
        wait_for(lambda: watched.ended)
    assert watched.ended[0] == EXIT_STATUS
    assert "Process 2 (node) is gone: not heard of for 0.2 s, last at step 3" in watched.said[0]
    assert "steps need all 3" in watched.said[0] and "The same command resumes" in watched.said[0]
    assert any((watched.folder / "stalls").iterdir())
    assert peers.mine[-1] == "done"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({1: "failed: DataError: row 7 is bad", 2: "x"},
         "Process 1 (node) is gone: failed: DataError: row 7 is bad"),
        (RuntimeError("UNAVAILABLE: no\nmore"),
         "Process 0 (node) is gone: the coordinator does not answer: UNAVAILABLE: no"),
    ],
)  # fmt: skip
def test_what_became_of_another_is_told(watched, monkeypatch, words, message):
    Peers(monkeypatch).words = words
    with watched(peer_timeout_s=30.0, stall_minimum_s=0.1):
        wait_for(lambda: watched.ended)
    assert message in watched.said[0]


def test_processes_that_are_done_are_not_missed(watched, monkeypatch):
    Peers(monkeypatch).words = {1: "done", 2: "done"}
    with watched(stall_factor=0.0, peer_timeout_s=0.1):
        time.sleep(0.5)
    assert not watched.ended


def test_a_process_that_has_not_begun_is_waited_for(watched, monkeypatch):
    Peers(monkeypatch).words = {1: "done"}
    with watched(stall_factor=0.0, peer_timeout_s=0.1):
        time.sleep(0.5)
    assert not watched.ended


def test_a_process_is_missed_from_its_first_moment(watched, monkeypatch):
    """Killed before its thread has looked once, it would else be waited for by JAX alone."""
    peers = Peers(monkeypatch)
    watch = watched(peer_timeout_s=30.0)
    monkeypatch.setattr(watch._thread, "start", lambda: None)
    monkeypatch.setattr(watch._thread, "join", lambda _: None)
    with watch:
        assert peers.mine == ["1 step 0 first step"]
        watch._look_at_peers(31.0)
        assert "Processes 1 (node), 2 (node) are gone: not heard of for 30 s" in watched.said[0]


def test_alarms_are_heard_from_every_process(monkeypatch, capsys):
    console = Console(width=20)
    alarm(console, "Process 1 [node] is gone: it said so")
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    console.quiet = True
    alarm(console, "Process 1 [node] is gone: it said so")
    out, err = capsys.readouterr()
    assert out == "Process 1 [node] is gone: it said so\n"
    assert err == "process 2: Process 1 [node] is gone: it said so\n"


def test_time_in_which_this_process_was_stopped_does_not_count(watched, monkeypatch):
    """As when a machine is suspended, or moved: the others could not be heard either."""
    peers = Peers(monkeypatch)
    watch = watched(peer_timeout_s=30.0)
    watch._look_at_peers(1.0)
    for _ in range(2):
        watch._look_at_peers(14.0)
    assert not watched.ended
    peers.words[1] = "2 step 6 steps"
    watch._look_at_peers(14.0)
    assert "Process 2 (node) is gone" in watched.said[0]

    clock = iter([0.0, 1.0, 500.0])
    gaps = []
    waits = iter([False, False, True])
    monkeypatch.setattr(watch._closing, "wait", lambda _: next(waits))
    monkeypatch.setattr(watch, "_look_at_peers", gaps.append)
    monkeypatch.setattr(watch, "_look_at_steps", lambda: None)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: next(clock, 500.0))
    watch._minimum_s = 25.0
    watch._run()
    assert gaps == [1.0, 5.0]


def test_an_error_is_told_to_the_others(watched, monkeypatch):
    peers = Peers(monkeypatch)
    with pytest.raises(DataError), watched(peer_timeout_s=30.0):
        raise DataError("bad row", got=7)
    assert peers.mine[-1] == "failed: DataError: bad row - got 7"


def test_a_lost_connection_is_traced_to_a_process(watched, monkeypatch):
    peers = Peers(monkeypatch)
    with contextlib.suppress(ValueError), watched(stall_factor=0.0):
        raise ValueError("Gloo AllGather failed: connection reset")
    assert "Looking for the process that died" in watched.said[0]
    assert "Processes 1 (node), 2 (node) are gone" in watched.said[1] and watched.ended
    assert peers.mine[-1].startswith("failed: ValueError: Gloo AllGather failed")


def test_stalls_tell_who_is_behind(watched, monkeypatch):
    peers = Peers(monkeypatch)
    peers.words = {1: "1 step 9 steps", 2: "1 step 3 steps"}
    with watched(peer_timeout_s=60.0) as watch:
        watch.beat(8)
        watch.beat(9)
        wait_for(lambda: watched.said)
    assert "Behind the others, at step 3: process 2 (node)" in watched.said[0]
