"""Starting anew with huge pages, without starting anything."""

import os
import sys

import pytest

from tulu_jax.cli import huge_pages, main


@pytest.fixture
def started(monkeypatch):
    found = []
    monkeypatch.setattr(os, "execv", lambda path, argv: found.append((path, argv)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "tulu_jax", "train", "--x"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return found


def test_the_same_command_is_started_with_the_setting(started):
    huge_pages.use_huge_pages()
    assert started == [(sys.executable, [sys.executable, "-m", "tulu_jax", "train", "--x"])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


def test_other_settings_are_kept(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    huge_pages.use_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"


def test_once_is_enough(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    huge_pages.use_huge_pages()
    assert not started and os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=0"


def test_only_linux_has_it(started, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    huge_pages.use_huge_pages()
    assert not started


def test_calls_from_python_never_restart(started, capsys):
    with pytest.raises(SystemExit, match="0"):
        main.main(["train", "--help"])
    assert main.main(["train", "--gin_file=runs/nope.gin"]) == 2
    assert not started and "cannot be read" in capsys.readouterr().err
