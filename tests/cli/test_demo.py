"""The demo from end to end, cut down to two steps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_two_steps(tmp_path):
    command = [sys.executable, "-m", "tulu_jax", "demo", "--dir", str(tmp_path / "demo")]
    done = subprocess.run(
        [*command, "--steps", "2", "--questions", "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    scores = re.findall(r"exact match[^:]*: (\d+\.\d)%", done.stdout)
    assert "of 20 questions" in done.stdout
    assert len(scores) == 2 and all(float(score) < 5 for score in scores)
    folder = tmp_path / "demo"
    assert json.loads((folder / "hf" / "config.json").read_text())["model_type"] == "llama"
    assert (folder / "hf" / "tokenizer.json").exists()
    assert (folder / "run" / "checkpoints" / "2").is_dir()
    assert (folder / "run" / "loss.png").stat().st_size > 1000
    assert "tulu chat --model" in done.stdout
