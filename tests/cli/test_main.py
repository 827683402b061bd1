"""What every command does with errors: words and a status, never a traceback."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tulu_jax.cli import bench
from tulu_jax.cli import main as commands
from tulu_jax.cli.main import INTERNAL, main
from tulu_jax.errors import ConfigError

ROOT = Path(__file__).parents[2]


def run_with(monkeypatch, capsys, error):
    def fail(args):
        raise error

    monkeypatch.setattr(bench, "run", fail)
    status = main(["bench", "train"])
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert captured.err.startswith("tulu bench: ") and captured.err.count("\n") == 1
    return status, captured.err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigError("x is wrong", got=3), 2, "tulu bench: x is wrong - got 3\n"),
        (OSError(28, "No space left on device", "/full"), 2,
         "cannot read or write - got No space left on device at /full - expected a readable file"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("Unable to allocate 8 EiB"), 2,
         "this machine's memory is too small - got Unable to allocate 8 EiB - expected room"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffers:"), 2,
         "the devices' memory is too small - got RESOURCE_EXHAUSTED: Out of memory allocating 9 "
         "bytes. - expected a step that fits - raise MICRO_BATCHES"),
    ],
)  # fmt: skip
def test_errors_are_told_in_words(monkeypatch, capsys, error, status, message):
    found, text = run_with(monkeypatch, capsys, error)
    assert found == status and message in text


def test_an_error_that_a_library_made_of_an_interrupt(monkeypatch, capsys, interruptible):
    monkeypatch.setattr(sys, "argv", ["tulu", "data", "inspect", "x"])
    monkeypatch.setattr(commands, "_interrupts", [])

    def run(_args):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("an extension could not be initialized") from None

    monkeypatch.setattr("tulu_jax.cli.data.inspect.run", run)
    monkeypatch.setattr(commands, "accept_every_character", lambda: None)
    monkeypatch.setattr(commands, "leave_out_closed_loops", lambda: None)
    assert commands.main() == 130
    assert capsys.readouterr().err == "tulu data: interrupted\n"


class Dropping:
    """Its end is a callback in which an interrupt comes."""

    def __del__(self):
        raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_in_a_callback_is_not_lost(monkeypatch, capsys, interruptible):
    monkeypatch.setattr(sys, "unraisablehook", commands._raise_again)
    with pytest.raises(KeyboardInterrupt):
        Dropping()
        time.sleep(5)
    assert capsys.readouterr().err == ""


TIDYING = """
import atexit, signal, sys, time
from tulu_jax.cli import bench, main

def wait(text):
    print(text, flush=True)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(wait, "tidies up")
bench.run = lambda _: wait("works")
sys.exit(main.main())
"""


def test_an_interrupt_after_the_end_ends_the_process_without_a_word():
    process = subprocess.Popen(
        [sys.executable, "-c", TIDYING, "bench", "train"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for text in ("works\n", "tidies up\n"):
        assert process.stdout.readline() == text
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120) == ("", "tulu bench: interrupted\n")
    assert process.returncode == -signal.SIGINT


def test_an_interrupt_while_commands_are_loaded(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "make_parser", interrupted)
    assert commands.main(["data"]) == 130
    assert capsys.readouterr().err == "tulu: interrupted\n"


def test_what_nobody_foresaw_is_kept_for_a_report(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    status, text = run_with(monkeypatch, capsys, KeyError("lost"))
    assert status == INTERNAL
    assert "a fault of tulu-jax itself - got KeyError: 'lost' - the traceback is kept in " in text
    kept = Path(re.search(r"kept in (\S+)", text)[1])
    assert kept.parent == tmp_path and "KeyError: 'lost'" in kept.read_text()
