"""Hostile programs beside honest ones: nothing leaks, escapes or wrongly passes."""

import ctypes
import os
import platform
import re
import secrets
import socket
import subprocess
import sys
import tempfile

import attacks
import false_passes
import pytest
from processes_of import descendants, now

from eval.sandbox import Limits, Program, run_programs

LIMITS = Limits(wall_s=6.0)
WORKERS = 6
"""More than there are cores: most of these programs wait until they are ended."""
RIGHT = secrets.token_hex(8)
TEST = f"""
def check(candidate):
    assert candidate(1) == "{RIGHT}"
    assert candidate([2]) == "{RIGHT}"
"""
TELL = "def check(candidate):\n    raise ValueError(f'told: {candidate(1)!r}')\n"
HONEST = Program("def attack(x): return x", "def check(c):\n    assert c(1) == 1\n", "attack")


def run_beside_honest_ones(programs, test, mode="fixed"):
    """The outcomes by name; an honest program after each fifth, which must pass."""
    names = list(programs)
    listed = []
    for number, name in enumerate(names):
        listed.append(Program(programs[name], test, "attack"))
        if number % 5 == 4:
            listed.append(HONEST)
    outcomes = run_programs(listed, mode=mode, timeout_s=1.0, limits=LIMITS, workers=WORKERS)
    told = zip(listed, outcomes, strict=True)
    honest = [outcome for program, outcome in told if program is HONEST]
    assert honest and all(outcome.passed for outcome in honest), honest
    told = zip(listed, outcomes, strict=True)
    return dict(zip(names, (end for program, end in told if program is not HONEST), strict=True))


@pytest.fixture
def nothing_left(tmp_path, monkeypatch):
    """Nothing of a sandbox is left behind: processes, files, a setting of the kernel."""

    def seen():
        with open("/proc/sys/kernel/core_pattern") as stream:
            return descendants(os.getpid(), start), os.listdir(temporary), stream.read()

    start = now()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = seen()
    yield
    assert seen() == before


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Secrets in the caller's world, and where they lie."""
    found = {name: secrets.token_hex(12) for name in ("env", "file", "tmp", "argv", "key", "shm")}
    monkeypatch.setenv("TULU_SECRET", found["env"])
    file = tmp_path / "secret"
    file.write_text(found["file"])
    os.chmod(file, 0o644)
    libc = ctypes.CDLL(None, use_errno=True)
    key_name, shm_key = secrets.token_hex(4), secrets.randbits(30)
    if platform.machine() == "x86_64":
        for ring in (-3, -4):
            libc.syscall(248, b"user", key_name.encode(), found["key"].encode(), 24, ring)
    shm = libc.shmget(shm_key, 4096, 0o1666)
    child = [sys.executable, "-I", "-S", "-c", "input()", found["argv"]]
    abstract, path = secrets.token_hex(4), str(tmp_path / "socket")
    with (
        tempfile.NamedTemporaryFile("w") as temporary,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as nameless,
        subprocess.Popen(child, stdin=subprocess.PIPE) as process,
    ):
        temporary.write(found["tmp"])
        temporary.flush()
        named.bind(path)
        named.listen()
        nameless.bind(f"\0{abstract}")
        nameless.listen()
        places = {
            "file": file, "tmp_file": temporary.name, "key": key_name, "shm_key": shm_key,
            "port": server.getsockname()[1], "abstract": abstract, "socket": path,
            "pid": os.getpid(),
        }  # fmt: skip
        yield found, places
        process.communicate(b"\n")
    if shm >= 0:
        libc.shmctl(shm, 0, None)


def filled(programs, planted):
    """The programs with the places of the secrets in them.

    Those that compare get each secret in two halves, so that what they hold is no leak.
    """
    found, places = planted
    halves = ", ".join(f"'{s[:12]}' + '{s[12:]}'" for s in found.values())
    places = {**places, "secrets": f"({halves})"}
    return {
        name: re.sub(r"@(\w+)@", lambda place: str(places[place[1]]), code)
        for name, code in programs.items()
    }


def assert_nothing_found(outcomes, found):
    for name, outcome in outcomes.items():
        assert not outcome.result.startswith("error"), (name, outcome)
        assert "REACHED" not in outcome.result and "LEAK" not in outcome.result, (name, outcome)
        for secret in found.values():
            assert secret not in outcome.result, (name, outcome)


def test_no_false_passes(bwrap, nothing_left):
    outcomes = run_beside_honest_ones(false_passes.PROGRAMS, TEST)
    passed = [name for name, outcome in outcomes.items() if outcome.passed]
    assert not passed
    assert [(n, o) for n, o in outcomes.items() if not o.result.startswith(("failed", "tim"))] == []
    assert not any(RIGHT in outcome.result for outcome in outcomes.values())


@pytest.mark.parametrize("mode", ["fixed", "paper"])
def test_no_secret_is_found(bwrap, planted, nothing_left, mode):
    programs = filled(attacks.LOOKING, planted)
    if mode == "paper":  # there the test is in the candidate's own process
        del programs["frames"], programs["objects"]
    outcomes = run_beside_honest_ones(programs, TELL, mode)
    assert_nothing_found(outcomes, planted[0])


@pytest.mark.parametrize("mode", ["fixed", "paper"])
def test_no_right_is_gained(bwrap, planted, nothing_left, mode):
    outcomes = run_beside_honest_ones(filled(attacks.BREAKING, planted), TELL, mode)
    assert_nothing_found(outcomes, planted[0])


def test_bombs_end_and_the_rest_goes_on(bwrap, nothing_left):
    outcomes = run_beside_honest_ones(attacks.BOMBS, TELL)
    assert_nothing_found(outcomes, {})


def test_there_are_more_than_a_hundred():
    assert len(false_passes.PROGRAMS) > 80
    assert len(attacks.LOOKING) + len(attacks.BREAKING) + len(attacks.BOMBS) > 100
