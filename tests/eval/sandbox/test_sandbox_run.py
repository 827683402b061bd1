"""What programs give, in both modes; limits; what happens when the machinery fails."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from processes_of import descendants

from eval.sandbox import Limits, Program, SandboxError, isolation, run, run_programs, worker
from tulu_jax.errors import ConfigError

ROOT = Path(__file__).parents[3]
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n"


def program(code, test=CHECK, helpers=""):
    return Program(code, test, "double", helpers)


def results(programs, **how):
    return [outcome.result for outcome in run_programs(programs, workers=1, **how)]


@pytest.mark.parametrize("mode", ["paper", "fixed"])
def test_results_are_said_as_the_reference_says_them(bwrap, mode):
    head = "def double(x):\n"
    told = {
        "    return 2 * x": "passed",
        "    return x": "failed: ",
        "    return y": "failed: name 'y' is not defined",
        "    raise ValueError('no')": "failed: no",
        "    return input()": "failed: ",
        "    import sys; sys.exit(3)": "failed: 3",
        "    while True: pass": "timed out",
        "    import time; time.sleep(30); return 4": "timed out",
        "    return 4 +": "failed: invalid syntax (<string>, line 2)",
        "    print('x'); return 4": "passed",
        "    import numpy; return int(numpy.int64(2) * x)": "passed",
    }
    outcomes = run_programs([program(head + body) for body in told], mode=mode, timeout_s=0.5)
    assert [outcome.result for outcome in outcomes] == list(told.values())
    assert [outcome.passed for outcome in outcomes] == [r == "passed" for r in told.values()]
    assert all("bubblewrap" in outcome.isolation for outcome in outcomes)


def test_what_only_the_paper_takes_away(bwrap):
    code = "import os\ndef double(x):\n    os.getcwd()\n    return 2 * x"
    assert results([program(code)], mode="fixed") == ["passed"]
    assert results([program(code)], mode="paper") == ["failed: 'NoneType' object is not callable"]
    gone = [program("import os\nos._exit(0)\ndef double(x): return 4")]
    assert results(gone, mode="paper") == ["timed out"]  # as the reference says of no result


def test_what_passes_wrongly_in_one_process_only(bwrap):
    liar = "class E:\n    def __eq__(s, o): return True\ndef double(x): return E()"
    patched = (
        "import builtins\ndef double(x): return 5\nclass N(int):\n    __eq__ = lambda s, o: True\n"
    )
    patched += "def double(x): return N()"
    assert results([program(liar), program(patched)], mode="paper") == ["passed"] * 2
    assert results([program(liar), program(patched)], mode="fixed") == ["failed: "] * 2


def test_helpers_are_on_both_sides(bwrap):
    helpers = "import math\ndef half(x):\n    return x / 2\ndef double(x):\n"
    test = "def check(c):\n    assert half(c(3)) == 3 and half(double(math.pi)) == math.pi\n"
    code = helpers + "    return 2 * x * half(2)\n"
    for mode in ("paper", "fixed"):
        assert results([program(code, test, helpers)], mode=mode) == ["passed"]


def test_arguments_are_copies_by_name_too(bwrap):
    code = "def double(x, *, by=1):\n    x.append(by)\n    return x"
    test = (
        "def check(c):\n    a = [1]\n    assert c(a, by=(2,)) == [1, (2,)]\n    assert a == [1]\n"
    )
    assert results([program(code, test)]) == ["passed"]


def test_an_expected_error_is_one(bwrap):
    code = "class Mine(KeyError): pass\ndef double(x):\n    raise Mine('a')"
    test = "def check(c):\n    try:\n        c(1)\n    except KeyError as error:\n"
    test += "        assert error.args == ('a',)\n    else:\n        assert False\n"
    assert results([program(code, test)]) == ["passed"]
    test = "def check(c):\n    try:\n        c(1)\n    except BaseException:\n        pass\n"
    for code in ("import os\ndef double(x): os._exit(0)", "def double(x):\n    while True: pass"):
        assert results([program(code, test)], timeout_s=0.5) != ["passed"]


def test_time_is_the_programs_own(bwrap):
    """Stopped for longer than its limit, a program still passes: it neither ran nor slept."""
    busy = "def double(x):\n    n = 0\n    for _ in range(3 * 10**6): n += 1\n    return 2 * x"
    many = [program(busy)] * 8
    assert set(results(many, timeout_s=2.0)) == {"passed"}
    outcomes = run_programs(many, timeout_s=2.0, workers=8)
    assert {outcome.result for outcome in outcomes} == {"passed"}


def test_where_memory_runs_out_it_is_the_program_that_ends(bwrap):
    code = "def double(x): return int(open('/proc/self/oom_score_adj').read())"
    test = "def check(c):\n    assert c(0) == 1000\n"
    assert results([program(code, test)]) == ["passed"]


def test_the_root_of_a_user_namespace_is_a_plain_user(bwrap, tmp_path):
    """There is nobody to become there, as in a container without root."""
    tmp_path.chmod(0o755)
    code = (
        "from eval.sandbox import Program, run_programs\n"
        "print(run_programs([Program('def f(): return 1', 'def check(c): assert c()', 'f')]))"
    )
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if os.geteuid() == 0:  # still root outside: it must not go on with those rights
        assert "SandboxError" in found.stderr
    else:
        assert "passed=True" in found.stdout


def test_limits_are_kept(bwrap):
    limits = Limits(
        memory_bytes=2**29, file_bytes=10**5, tmp_bytes=10**6, tmp_files=20, processes=8
    )
    bodies = {
        "len(bytearray(2**28)) and 4": "passed",
        "len(bytearray(2**30)) and 4": "failed: ",
        "open('f', 'wb').write(bytes(2 * 10**5)) and 4": "failed: [Errno 27] File too large",
        "[open(f'{n}', 'wb').write(bytes(9 * 10**4)) for n in range(15)] and 4": "failed: "
        "[Errno 28] No space left on device",
        "[open(f'{n}', 'wb') for n in range(30)] and 4": "failed: [Errno 28] No space left on "
        "device: '19'",
        "[__import__('os').fork() for n in range(9)] and 4": "failed: [Errno 11] Resource "
        "temporarily unavailable",
    }
    programs = [program(f"def double(x): return {body}") for body in bodies]
    assert results(programs, limits=limits) == list(bodies.values())


def test_programs_do_not_see_each_other(bwrap):
    write = (
        "import os\nopen('/tmp/f', 'w').write('x')\nos.putenv('A', 'b')\nos.environ['A'] = 'b'\n"
    )
    write += "import builtins\nbuiltins.mark = 1\n"
    write += "import ctypes\nctypes.CDLL(None).shmget(77, 4096, 0o1666)\n"
    write += "if os.fork() == 0:\n    import socket, time\n    s = socket.socket(1)\n"
    write += "    s.bind('\\0here')\n    s.listen()\n    time.sleep(99)\ndef double(x): return 4"
    look = "import os, socket, builtins, ctypes\ndef double(x):\n    n = len(os.listdir('/tmp'))\n"
    look += "    n += 'A' in os.environ or hasattr(builtins, 'mark')\n"
    look += "    n += ctypes.CDLL(None).shmget(77, 0, 0) >= 0\n"
    look += "    n += socket.socket(1).connect_ex('\\0here') == 0\n"
    look += "    n += sum(p.isdigit() for p in os.listdir('/proc')) != 2\n    return n"
    test = "def check(c):\n    assert c(0) == 0, c(0)\n"
    assert results([program(write), program(look, test)] * 2) == ["passed"] * 4


def test_order_and_progress(bwrap):
    programs = [program(f"def double(x): return {n}", "def check(c): raise ValueError(c(1))")
                for n in range(20)]  # fmt: skip
    told = {}
    outcomes = run_programs(programs, workers=3, progress=told.__setitem__)
    assert [outcome.result for outcome in outcomes] == [f"failed: {n}" for n in range(20)]
    assert told == dict(enumerate(outcomes))
    assert run_programs([]) == []


def test_an_error_in_progress_ends_the_run(bwrap):
    def progress(index, outcome):
        raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        run_programs([program("def double(x): return 4")] * 9, workers=2, progress=progress)


def test_a_test_that_cannot_run_is_an_error_and_no_failure(bwrap):
    for test, why in (
        ("def check(c: pass", "prompt or test is no program: SyntaxError"),
        ("import nothing_of_the_kind", "ModuleNotFoundError"),
        ("x = 1", "the test defines no check"),
        ("def check(c): c(print)", "what is no plain data"),
    ):
        (outcome,) = run_programs([program("def double(x): return 4", test)])
        assert outcome.passed is None and why in outcome.result
        assert outcome.result.startswith("error: the problem cannot be checked - got ")


def test_a_sandbox_that_dies_is_started_again(bwrap, monkeypatch):
    real, faults = worker.run_fixed, iter([True, False, True, True])

    def dying(sandboxes, *rest):
        if next(faults, False):
            for process in descendants(sandboxes["checker"]._process.pid):
                os.kill(process, signal.SIGKILL)
        return real(sandboxes, *rest)

    monkeypatch.setattr(worker, "run_fixed", dying)
    outcomes = run_programs([program("def double(x): return 4")] * 3, workers=1)
    assert [outcome.passed for outcome in outcomes] == [True, None, True]
    assert "the sandbox" in outcomes[1].result


def test_without_bubblewrap_only_when_allowed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    programs = [program("def double(x): return 2 * x"), program("def double(x): return 5")]
    with pytest.raises(SandboxError, match=r"cannot be isolated.*no bwrap.*allow_unsafe_execution"):
        run_programs(programs)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    daemon = program("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(77)\n"
                     "open('left', 'w')\ndef double(x): return 4")  # fmt: skip
    for mode in ("paper", "fixed"):
        outcomes = run_programs([*programs, daemon], mode=mode, allow_unsafe_execution=True)
        expected = [True, False, mode == "fixed"]  # the paper's guard takes os.fork away
        assert [outcome.passed for outcome in outcomes] == expected
        assert {outcome.isolation for outcome in outcomes} == {"none (allow_unsafe_execution)"}
    assert os.listdir(tmp_path) == []


def test_bubblewrap_that_cannot_isolate_is_refused(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    script = "[ $1 = --version ] && echo bubblewrap 9 && exit\necho 'No permissions' >&2\nexit 1\n"
    fake.write_text("#!/bin/sh\n" + script)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        SandboxError, match=r"does not start - got .*No permissions.* at bubblewrap 9"
    ):
        run_programs([program("def double(x): return 4")])
    allowed = run_programs([program("def double(x): return 4")], allow_unsafe_execution=True)
    assert [(o.passed, o.isolation) for o in allowed] == [(True, "none (allow_unsafe_execution)")]


def test_the_probe_names_what_is_reached(bwrap, monkeypatch):
    """A sandbox that shares the network and binds the whole disk is no sandbox."""
    real = isolation.Isolation._command

    def leaky(self, binds, control, preload):
        command = real(self, binds, control, preload)
        command.insert(2, "--share-net")
        at = command.index("--proc")
        return [*command[:at], "--ro-bind", "/tmp", "/tmp", *command[at:]]

    monkeypatch.setattr(isolation.Isolation, "_command", leaky)
    with pytest.raises(SandboxError, match=r"does not isolate - got the network .*none of it"):
        run_programs([program("def double(x): return 4")])


def test_the_probe_finds_an_environment(bwrap, monkeypatch):
    monkeypatch.setitem(isolation.ENVIRONMENT, "SECRET", "1")
    monkeypatch.setattr(run, "ENVIRONMENT", {k: v for k, v in isolation.ENVIRONMENT.items()
                                             if k != "SECRET"})  # fmt: skip
    with pytest.raises(SandboxError, match="does not isolate - got the caller's environment at"):
        run_programs([program("def double(x): return 4")])


def test_no_environment_reaches_the_sandbox(bwrap, monkeypatch):
    monkeypatch.setenv("TULU_SECRET", "open sesame")
    sandbox = worker.Sandbox(isolation.choose())
    try:
        sandbox.wait()
        for process in [sandbox._process.pid, *descendants(sandbox._process.pid)]:
            assert b"sesame" not in Path(f"/proc/{process}/environ").read_bytes()
            assert os.geteuid() != 0 or Path(f"/proc/{process}").stat().st_uid != 0
    finally:
        sandbox.close()


def test_a_killed_caller_leaves_nothing(bwrap):
    code = (
        "from eval.sandbox import Program, run_programs\n"
        "p = Program('import time; time.sleep(60)', 'def check(c): c()', 'f')\n"
        "print('ready', flush=True)\n"
        "run_programs([p] * 4, timeout_s=60, workers=2)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as caller:
        assert caller.stdout.readline() == "ready\n"
        mine = set()
        deadline = time.monotonic() + 60
        while len(mine) < 24 and time.monotonic() < deadline:
            mine = descendants(caller.pid)  # two pairs of sandboxes, and a program in each
            time.sleep(0.05)
        caller.kill()
    assert len(mine) == 24
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(_alive(process) for process in mine):
            return
        time.sleep(0.05)
    raise AssertionError("processes of the sandbox outlive their caller")


def _alive(process):
    try:
        return "zygote" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


def test_signals_that_a_thread_blocks_are_not_inherited(bwrap):
    code = "import signal\ndef double(x): return signal.pthread_sigmask(signal.SIG_BLOCK, [])"
    test = "def check(c):\n    assert c(0) == set()\n"
    found = []

    def work():
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        found.extend(results([program(code, test)]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["passed"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"mode": "both"}, "unknown mode - got 'both' - expected paper or fixed"),
        ({"timeout_s": 0}, "timeout_s is out of range - got 0 - expected a number above 0"),
        ({"workers": 0}, "workers is out of range - got 0 - expected 1 or more"),
    ],
)
def test_settings_out_of_range(how, message):
    with pytest.raises(ConfigError, match=message):
        run_programs([program("")], **how)


def test_limits_and_names_out_of_range():
    with pytest.raises(ConfigError, match="memory_bytes is out of range - got 0"):
        Limits(memory_bytes=0)
    with pytest.raises(ConfigError, match="entry_point is not the name of a function - got 'a b'"):
        Program("", "", "a b")
    assert Limits().wall(3.0) == 60.0 and Limits(wall_s=5.0).wall(3.0) == 5.0


def test_a_package_that_is_not_installed_is_named(bwrap, monkeypatch):
    monkeypatch.setattr(run, "PACKAGES", ("numpyy",))
    with pytest.raises(SandboxError, match="not installed here - got numpyy - pip install numpyy"):
        run_programs([program("import numpyy")])


def test_outcomes_are_json():
    from eval.sandbox import Outcome

    outcome = Outcome("failed: x", False, 0.1, "none")
    assert json.loads(json.dumps(outcome.as_json()))["result"] == "failed: x"
