"""The CPU alone, but only where libtpu is installed and no accelerator is there."""

import os
import sys

import pytest

from tulu_jax.cli import absent_tpu


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with libtpu; returns its root folder, in which there is no device yet."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(absent_tpu.importlib.util, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr(
        absent_tpu, "Path", lambda *parts: tmp_path.joinpath(*(p.lstrip("/") for p in parts))
    )
    (tmp_path / "dev").mkdir()
    (tmp_path / "sys/bus/pci/devices/0000").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000/vendor").write_text("0x1af4\n")
    return tmp_path


def platforms():
    absent_tpu.leave_out_absent_tpu()
    return os.environ.get("JAX_PLATFORMS")


def test_the_cpu_alone_without_an_accelerator(machine, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "")  # so that it is taken back after the test
    monkeypatch.delenv("JAX_PLATFORMS")
    assert platforms() == "cpu"


def test_a_tpu_or_gpu_is_left_to_jax(machine):
    (machine / "dev/nvidia0").touch()
    assert platforms() is None
    (machine / "dev/nvidia0").unlink()
    (machine / "sys/bus/pci/devices/0000/vendor").write_text(f"{absent_tpu.GOOGLE}\n")
    assert platforms() is None


def test_nothing_without_libtpu(machine, monkeypatch):
    monkeypatch.setattr(absent_tpu.importlib.util, "find_spec", lambda name: None)
    assert platforms() is None


def test_the_users_choice_stands(machine, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert platforms() == "cuda"
