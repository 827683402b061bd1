"""The package as `pip install` lays it out, and one parser for tests of many command lines."""

import functools
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import quick_xla

from tulu_jax.cli import main

ROOT = Path(__file__).parent.parent.parent
BUILT_FROM = (
    *("tulu_jax", "tasks", "eval", "gin_configs"),
    *("pyproject.toml", "README.md", "LICENSE"),
)


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The folder of an unpacked wheel, made from a copy of the tracked and the new files."""
    work = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *BUILT_FROM],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (work / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(work)],
        cwd=work / "source", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(work / done.stdout.split()[-1]) as wheel:
        wheel.extractall(work / "installed")
    return work / "installed"


@pytest.fixture(scope="session")
def away(installed):
    """Runs a Python command line with the installed package, from a folder of its own."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(installed), "XLA_FLAGS": quick_xla.flags()}
        return subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip

    return run


_make_parser = functools.cache(main.make_parser)


@pytest.fixture
def one_parser(monkeypatch):
    """`main` takes the same parser each time: making it is half of a command that is refused."""
    monkeypatch.setattr(main, "make_parser", _make_parser)


@pytest.fixture
def interruptible(monkeypatch):
    """Ctrl-C raises, also where the tests were started in the background, which ignores it.

    What the command makes of it ends with the test.
    """
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
