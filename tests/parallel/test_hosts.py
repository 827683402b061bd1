"""How the processes of a run find each other, and what is said when they do not."""

import socket
import threading

import pytest
from buckets import free_port

from tulu_jax.errors import ConfigError, GuardError
from tulu_jax.parallel import hosts
from tulu_jax.parallel.hosts import Cluster, barrier, check_agree, find_cluster, first_host
from tulu_jax.parallel.roll_call import call_roll

NOTHING = (None, None, None)
SLURM = {
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "3",
    "SLURM_JOB_ID": "5000",
}
VARIABLES = {
    "JAX_COORDINATOR_ADDRESS": "a:1",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (NOTHING, {}, None),
        ((None, 1, None), SLURM, None),
        (("h:1", 4, 2), VARIABLES | SLURM, Cluster("h:1", 4, 2, "flags")),
        (NOTHING, VARIABLES | SLURM, Cluster("a:1", 2, 1, "variables")),
        (NOTHING, SLURM, Cluster("gpu07:62344", 16, 3, "SLURM")),
        (NOTHING, SLURM | {"SLURM_NTASKS": "1"}, None),
    ],
)
def test_who_tells_of_the_others(given, environment, expected):
    assert find_cluster(given, {"JAX_PLATFORMS": "cpu", **environment}) == expected


@pytest.mark.parametrize(("platforms", "expected"), [("", True), ("tpu,cpu", True), ("cpu", False)])
def test_a_tpu_is_left_to_jax(monkeypatch, platforms, expected):
    monkeypatch.setattr(hosts.Path, "glob", lambda *_: iter(["accel0"]))
    monkeypatch.setattr(hosts.importlib.util, "find_spec", lambda _: object())
    environment = {"JAX_PLATFORMS": platforms} if platforms else {}
    found = find_cluster(NOTHING, environment)
    assert found == (Cluster(None, found_by="TPU") if expected else None)


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (("h:1", 4, None), {}, r"told of in part only - got flags without --process_id - expected"),
        (NOTHING, {"JAX_NUM_PROCESSES": "4"},
         r"got variables without --coordinator_address, --process_id"),
        (NOTHING, VARIABLES | {"JAX_PROCESS_ID": "one"}, r"JAX_PROCESS_ID is not a whole number"),
        (("h", 4, 0), {}, r"coordinator address is not understood - got h - expected HOST:PORT"),
        (("h:1", 4, 4), {}, r"--process_id is out of range - got 4 - expected 0 to 3, each once"),
    ],
)  # fmt: skip
def test_impossible_settings(given, environment, message):
    with pytest.raises(ConfigError, match=message):
        find_cluster(given, environment)


def test_first_host_docstring_example():
    names = first_host("gpu[007-010,12],login1"), first_host("a1,b[2-3]"), first_host("n5")
    assert names == ("gpu007", "a1", "n5")


def roll(calls, timeout_s=60.0):
    """What each caller of (process, of) is told: None, or the message."""
    address = f"localhost:{free_port()}"
    told = [None] * len(calls)

    def call(place, process, of):
        try:
            call_roll(address, of, process, timeout_s=timeout_s)
        except ConfigError as error:
            told[place] = str(error)

    threads = [threading.Thread(target=call, args=(i, *who)) for i, who in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_all_come():
    assert roll([(2, 3), (0, 3), (1, 3)]) == [None] * 3


def test_missing_processes_are_named_to_all_who_came():
    told = roll([(0, 4), (2, 4)], timeout_s=2)
    name = socket.gethostname()
    for message in told:
        assert f"got no process 1, 3; there are 0 ({name}), 2 ({name}) at localhost" in message
        assert "expected processes 0 to 3 within 2 s - start the missing ones" in message


def test_two_of_the_same_number():
    for message in roll([(0, 3), (1, 3), (1, 3)], timeout_s=2):
        assert message is None or "got two processes 1, on " in message or "0 does not" in message


def test_disagreement_on_how_many():
    told = roll([(0, 2), (1, 3)])
    assert all("says there are 3, process 0 2" in message for message in told)


def test_no_answer_from_process_0():
    message = roll([(1, 2)], timeout_s=0.3)[0]
    assert "process 0 does not answer - got nothing from localhost:" in message
    assert "for 0.3 s at process 1 on" in message and "check --coordinator_address" in message


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"process 0 cannot listen .* at port {port} - choo"):
            call_roll(f"localhost:{port}", 2, 0, timeout_s=1)


class Store:
    """JAX's coordination client of process 0 of three, where process 1 has come to barriers."""

    def __init__(self):
        self.values = {"tulu/host/2": "node-c", "tulu/barrier/saved 7/1/1": "here"}

    def key_value_set(self, name, value, allow_overwrite):
        self.values[name] = value

    def key_value_dir_get(self, prefix):
        return [(name, value) for name, value in self.values.items() if name.startswith(prefix)]

    def wait_at_barrier(self, name, timeout_ms):
        raise RuntimeError(f"DEADLINE_EXCEEDED: Barrier timed out. Id: {name}\nmore")


def test_barrier_names_who_is_missing(monkeypatch):
    state = hosts.distributed.global_state
    for name, value in {"client": Store(), "num_processes": 3, "process_id": 0}.items():
        monkeypatch.setattr(state, name, value)
    with pytest.raises(
        GuardError, match=r"not every process came to 'saved 7' - got no sign of process 2 "
        r"\(node-c\) at process 0, which waited 3 s - look at their logs"
    ):  # fmt: skip
        barrier("saved 7", timeout_s=3)


def test_processes_that_were_told_different_things(monkeypatch):
    """Process by process with what the others have published, as after the barrier."""
    store, state = Store(), hosts.distributed.global_state
    store.wait_at_barrier = lambda name, timeout_ms: None
    for name, value in {"client": store, "num_processes": 3}.items():
        monkeypatch.setattr(state, name, value)
    told = {"rows": {"seed": 1, "length": 8}, "exclude_files": {"x": "4d7a"}}
    for process in (0, 1, 0):
        monkeypatch.setattr(state, "process_id", process)
        check_agree(dict(reversed(told.items())) if process else told)
    monkeypatch.setattr(state, "process_id", 2)
    message = (
        r"processes of one run were told different things - got other exclude_files, more than the "
        r"first in process 2 \(node-c\) - expected the same settings and files in every process"
    )
    with pytest.raises(GuardError, match=message):
        check_agree({**told, "exclude_files": {}, "more": 1})
    monkeypatch.setattr(state, "process_id", 0)
    with pytest.raises(GuardError, match=message):
        check_agree(told)


def test_what_the_first_process_says_and_who_had_trouble(monkeypatch):
    """Process by process, as after the barrier."""
    store, state = Store(), hosts.distributed.global_state
    store.wait_at_barrier = lambda name, timeout_ms: None
    for name, value in {"client": store, "num_processes": 3, "process_id": 0}.items():
        monkeypatch.setattr(state, name, value)
    assert hosts.of_first("scores", "known") == "known"
    hosts.check_all_well("grading", None)
    monkeypatch.setattr(state, "process_id", 2)
    assert hosts.of_first("scores", "") == "known"
    message = r"grading failed - got OSError: disk full at process 2 \(node-c\)"
    with pytest.raises(GuardError, match=message):
        hosts.check_all_well("grading", "OSError: disk full")
    monkeypatch.setattr(state, "process_id", 1)
    with pytest.raises(GuardError, match=message):
        hosts.check_all_well("grading", None)


def test_one_process_waits_for_nobody():
    barrier("anything", timeout_s=0)
    assert hosts.of_first("anything", "mine") == "mine"
    hosts.check_all_well("anything", "whatever is raised here")
    assert hosts.published("host") == {} and hosts.num_processes() == 1
