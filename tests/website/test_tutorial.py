"""Blocks of pages that say `# runs`, run one after the other with fewer steps."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import quick_xla
from buckets import free_port
from train.small import on_devices

from tasks import demo
from tulu_jax.cli.main import main
from website.source import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGES = ["tutorial.md"]
BLOCK = re.compile(r"^```(sh|python)\n# (?:runs|goes on)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHORTER = {"STEPS=600": "STEPS=4", "PERIOD=300": "PERIOD=2", "--step 300": "--step 2",
           "--limit 100": "--limit 4"}  # fmt: skip
"""What a test does not wait for."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tasks").symlink_to(ROOT / "tasks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_sh(body, environment):
    """Each `tulu` line within this process; a block that starts a server as a whole, by bash."""
    if "&\n" in body:
        return subprocess.run(
            ["bash", "-euc", f"set -m\n{body}wait || true\n"],
            env=environment, capture_output=True, text=True, check=True, timeout=200,
        ).stdout  # fmt: skip
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "tulu", line
            assert main(words[1:]) == 0, line
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page, folder, monkeypatch, capfd):
    monkeypatch.setitem(demo.SIZES, "train", 3000)
    on_devices(monkeypatch.setattr, 1)
    text = (ROOT / "docs" / page).read_text()
    for long, short in SHORTER.items():
        assert long in text
        text = text.replace(long, short)
    text = text.replace("8000", str(free_port()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": quick_xla.flags()}  # fmt: skip
    blocks = BLOCK.findall(text)
    assert len(blocks) >= 10
    printed = ""
    for language, body in blocks:
        if language == "python":
            exec(compile(body, page, "exec"), {})
        else:
            printed += run_sh(body, environment)
    printed += capfd.readouterr().out
    assert "What is the plural of cat?\nassistant:\n[[cats]]" in printed
    assert (folder / "tutorial" / "model" / "model.safetensors").is_file()
    assert (folder / "tutorial" / "results" / "whole" / "tulu_demo" / "metrics.json").is_file()
    assert '"finish_reason"' in printed
