"""The demo from end to end, cut down to two steps, as it is installed and from any folder."""

import json
import re

import pytest

from tulu_jax.cli.main import main


@pytest.mark.slow
def test_two_steps(tmp_path, away):
    command = ["-m", "tulu_jax", "demo", "--dir", "my demo", "--steps", "2", "--questions", "20"]
    done = away(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    scores = re.findall(r"exact match[^:]*: (\d+\.\d)%", done.stdout)
    assert "of 20 questions" in done.stdout
    assert len(scores) == 2 and all(float(score) < 5 for score in scores)
    folder = tmp_path / "my demo"
    assert json.loads((folder / "hf" / "config.json").read_text())["model_type"] == "llama"
    assert (folder / "hf" / "tokenizer.json").exists()
    assert (folder / "run" / "checkpoints" / "2").is_dir()
    assert (folder / "run" / "loss.png").stat().st_size > 1000
    assert "tulu chat --model" in done.stdout
    shown = re.search(r"tulu data inspect tulu_demo --tokenizer (.*)", done.stdout)
    assert (tmp_path / shown[1] / "tokenizer.model").exists()


@pytest.mark.parametrize("flag", ["--steps", "--questions"])
def test_numbers_that_are_none(tmp_path, capsys, flag):
    for value in ("0", "-3"):
        with pytest.raises(SystemExit, match="2"):
            main(["demo", "--dir", str(tmp_path / "new"), f"{flag}={value}"])
        expected = f"{flag}: is out of range - got {value} - expected a whole number from 1 to"
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
