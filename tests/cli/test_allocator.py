"""Starting anew with an allocator that keeps its memory, without starting anything."""

import os
import resource
import subprocess
import sys
import types

import pytest

from tulu_jax.cli import allocator, main

VARIABLE, SETTINGS = allocator.VARIABLE, allocator.SETTINGS


@pytest.fixture
def started(monkeypatch):
    found = []
    monkeypatch.setattr(os, "execv", lambda path, argv: found.append((path, argv)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "tulu_jax", "train", "--x"])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv(VARIABLE, raising=False)
    return found


def test_the_same_command_is_started_with_the_settings(started):
    allocator.keep_memory()
    assert started == [(sys.executable, [sys.executable, "-m", "tulu_jax", "train", "--x"])]
    assert os.environ[VARIABLE] == SETTINGS


def test_other_settings_are_kept(started, monkeypatch):
    monkeypatch.setenv(VARIABLE, "glibc.pthread.rseq=1")
    allocator.keep_memory()
    assert os.environ[VARIABLE] == f"glibc.pthread.rseq=1:{SETTINGS}"
    allocator.keep_memory()  # as the new process does
    assert len(started) == 1 and os.environ[VARIABLE] == "glibc.pthread.rseq=1"


def test_once_is_enough_and_children_do_not_get_them(started, monkeypatch):
    monkeypatch.setenv(VARIABLE, SETTINGS)
    allocator.keep_memory()
    assert not started and VARIABLE not in os.environ


def test_a_choice_of_ones_own_stands(started, monkeypatch):
    monkeypatch.setenv(VARIABLE, "glibc.malloc.hugetlb=0")
    allocator.keep_memory()
    assert not started and os.environ[VARIABLE] == "glibc.malloc.hugetlb=0"


def test_only_linux_has_it(started, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    allocator.keep_memory()
    assert not started


@pytest.mark.parametrize(("file", "times"), [("accel0", 0), ("other", 1)])
def test_not_with_an_accelerator(started, monkeypatch, tmp_path, file, times):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(allocator, "Path", lambda _, name: tmp_path / name)
    (tmp_path / file).touch()
    allocator.keep_memory()
    assert len(started) == times


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_memory_given_back_costs_nothing_to_take_again():
    """100 MB taken and written four times from a thread, as XLA does: cleared only once."""
    code = """
import ctypes, resource, threading
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def take():
    for _ in range(4):
        block = libc.malloc(ctypes.c_size_t(100_000_000))
        ctypes.memset(block, 1, 100_000_000)
        libc.free(block)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=take)
    thread.start(); thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    found = {}
    for settings in ("", SETTINGS.replace("hugetlb=1", "hugetlb=0")):
        env = {**os.environ, VARIABLE: settings}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        found[settings != ""] = int(done.stdout)
    pages = 100_000_000 // resource.getpagesize()
    assert found[False] >= pages and found[True] < pages / 100


def test_calls_from_python_never_restart(started, capsys):
    with pytest.raises(SystemExit, match="0"):
        main.main(["train", "--help"])
    assert main.main(["train", "--gin_file=runs/nope.gin"]) == 2
    assert not started and "cannot be read" in capsys.readouterr().err


def test_memory_that_was_freed_is_used_again(monkeypatch):
    calls = {}
    library = types.SimpleNamespace(mallopt=lambda option, value: calls.update({option: value}))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: library)
    allocator.reuse_freed_memory()
    assert calls == {-8: 1, -4: 0, -1: 2**31 - 1}
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())  # not glibc
    allocator.reuse_freed_memory()


@pytest.mark.parametrize("command", ["import", "export"])
def test_commands_that_move_weights_leave_accelerators_alone(monkeypatch, interruptible, command):
    done = []
    monkeypatch.setattr(main, "reuse_freed_memory", lambda: done.append("memory"))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    words = ["--hf", "/nowhere"] if command == "import" else ["--output", "/nowhere/x"]
    monkeypatch.setattr(sys, "argv", ["tulu", command, "--model_dir", "/nowhere", *words])
    assert main.main() == 2
    assert (done, os.environ.pop("JAX_PLATFORMS")) == (["memory"], "cpu")
