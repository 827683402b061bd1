"""`tulu diff`."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tulu_jax.cli.main import main

from .small_model import write_model


def test_a_diff_is_made_and_applied(tmp_path, capsys):
    base = write_model(tmp_path / "base")
    tuned = write_model(tmp_path / "tuned")
    tensors = load_file(tuned / "model.safetensors")
    rng = np.random.default_rng(1)
    moved = {n: t + rng.normal(size=t.shape).astype(t.dtype) for n, t in tensors.items()}
    save_file(moved, tuned / "model.safetensors")
    back, delta = str(tmp_path / "back"), str(tmp_path / "diff")
    make = ["diff", "make", "--base", str(base), "--tuned", str(tuned)]
    apply = ["diff", "apply", "--diff", delta]
    assert main([*make, "--output", delta]) == 0
    assert main([*apply, "--base", str(base), "--output", back]) == 0
    printed = capsys.readouterr().out
    assert "kept as they are because base + diff is not exact there" in printed
    assert "checksums of base and result agree" in printed
    found = load_file(tmp_path / "back" / "model.safetensors")
    assert all(found[name].tobytes() == moved[name].tobytes() for name in moved)
    assert (tmp_path / "back" / "tokenizer.model").is_file()
    assert json.loads((tmp_path / "diff" / "tulu_diff.json").read_text())["format"] == 1
    assert main([*apply, "--base", str(tuned), "--output", str(tmp_path / "x")]) == 2
    assert "base is not the one the diff was made with" in capsys.readouterr().err


def test_help_names_both_actions(capsys):
    with pytest.raises(SystemExit):
        main(["diff", "--help"])
    assert "tulu diff apply --base llama-7b" in capsys.readouterr().out
