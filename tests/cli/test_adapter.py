"""Adapters on the command line: PEFT folder -> run -> PEFT folder, or one model."""

import jax
import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.peft import load_peft, save_peft
from tulu_jax.cli.main import main
from tulu_jax.models.lora import LoraConfig, abstract_adapters

from .small_model import write_model

LORA = LoraConfig(rank=2, alpha=4, dropout=0.0, targets=("q_proj", "down_proj"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    config = hf.open_folder(write_model(folder / "base")).config
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_adapters(config, LORA)
    )
    save_peft(folder / "peft", config, LORA, adapters, base="base")
    words = ("adapter", "--peft", "peft", "--base", "base", "--model_dir", "run")
    assert main([str(folder / w) if w in ("peft", "base", "run") else w for w in words]) == 0
    return folder / "run", config, adapters


def test_back_to_peft(run, tmp_path, capsys):
    assert main(["export", "--model_dir", str(run[0]), "--output", str(tmp_path / "a")]) == 0
    assert "adapters of rank 2 in PEFT's format" in capsys.readouterr().out
    _, found = load_peft(tmp_path / "a", run[1])
    jax.tree.map(np.testing.assert_array_equal, found, run[2])


def test_merged_into_one_model(run, tmp_path):
    words = ["export", "--model_dir", str(run[0]), "--output", str(tmp_path / "m"), "--merge"]
    assert main(words) == 0
    _, merged = hf.load(tmp_path / "m")
    _, base = hf.load(run[0].parent / "base")
    same = jax.tree.map(np.array_equal, merged, base)
    changed = {p[-1].key for p, ok in jax.tree_util.tree_leaves_with_path(same) if not ok}
    assert changed == {"query", "down"}
    assert (tmp_path / "m" / "tokenizer.model").is_file()


def test_generates_with_its_base(run, capsys):
    words = ["generate", "--model", str(run[0]), "--prompt", "Hi", "--max_new_tokens", "2"]
    assert main(words) == 0
    assert "tokens in" in capsys.readouterr().err


def test_nothing_to_merge(run, tmp_path, capsys):
    base, whole = str(run[0].parent / "base"), str(tmp_path / "whole")
    assert main(["import", "--hf", base, "--model_dir", whole]) == 0
    assert main(["export", "--model_dir", whole, "--output", whole + "2", "--merge"]) == 2
    assert "checkpoint holds no adapters" in capsys.readouterr().err
