"""What is done to models in buckets besides reading and writing them: verify, diff, adapters."""

import json
import os

import jax
import numpy as np
import pytest
from checkpoint.hf.small import read_tensors, write_tensors

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.peft import load_peft, save_peft
from tulu_jax.cli.main import main
from tulu_jax.models.lora import LoraConfig, abstract_adapters
from tulu_jax.places import local_folder, upload

from .small_model import write_model

LORA = LoraConfig(rank=2, alpha=4, dropout=0.0, targets=("q_proj", "down_proj"))


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """A model, the same with other weights, and an adapter for the first."""
    root = tmp_path_factory.mktemp("near")
    config = hf.open_folder(write_model(root / "base")).config
    write_model(root / "tuned")
    rng = np.random.default_rng(1)
    file = root / "tuned" / "model.safetensors"
    tensors = {
        n: t + rng.normal(size=t.shape).astype(t.dtype) for n, t in read_tensors(file).items()
    }
    write_tensors(file, tensors)
    (root / "tuned" / "checksums.json").unlink(missing_ok=True)
    adapters = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_adapters(config, LORA)
    )
    save_peft(root / "peft", config, LORA, adapters, base="base")
    return root, config, adapters


@pytest.fixture
def far(bucket, near, tmp_path, monkeypatch):
    """The bucket, with all three; commands run in an empty folder."""
    for file in near[0].rglob("*"):
        if file.is_file():
            upload(file, bucket / file.relative_to(near[0]))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield bucket
    assert os.listdir() == []


def tulu(*words, status=0):
    assert main([str(word) for word in words]) == status


def files(place):
    return {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}


def test_an_import_is_verified(torch, far, near, capsys):
    tulu("import", "--hf", far / "base", "--model_dir", far / "run", "--verify")
    assert "same model: every limit holds" in capsys.readouterr().out
    tulu("verify", "--hf", far / "tuned", "--model_dir", far / "run", status=1)
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_diff_is_made_and_applied(far, near, tmp_path):
    for place in (far, tmp_path):  # there, and here of what lies there
        tulu("diff", "make", "--base", far / "base", "--tuned", far / "tuned",
             "--output", tmp_path / f"{place.name}-delta")  # fmt: skip
    delta = tmp_path / f"{far.name}-delta"
    for file in delta.iterdir():
        upload(file, far / "delta" / file.name)
    tulu("diff", "apply", "--base", far / "base", "--diff", far / "delta",
         "--output", tmp_path / "back")  # fmt: skip
    found = read_tensors(tmp_path / "back" / "model.safetensors")
    wanted = read_tensors(near[0] / "tuned" / "model.safetensors")
    assert {n: t.tobytes() for n, t in found.items()} == {n: t.tobytes() for n, t in wanted.items()}


def test_an_adapter_becomes_a_run_and_one_model(far, near, tmp_path, capsys):
    tulu("adapter", "--peft", far / "peft", "--base", far / "base", "--model_dir", far / "run")
    for _ in range(2):  # the second as after a kill behind the last request
        tulu("export", "--model_dir", far / "run", "--output", far / "again")
    _, found = load_peft(local_folder(far / "again", weights=True), near[1])
    jax.tree.map(np.testing.assert_array_equal, found, near[2])
    for output in (far / "merged", tmp_path / "merged"):
        tulu("export", "--model_dir", far / "run", "--output", output, "--merge")
    assert files(far / "merged") == files(tmp_path / "merged")
    tulu("adapter", "--peft", near[0] / "peft", "--base", near[0] / "base",
         "--model_dir", tmp_path / "run")  # fmt: skip
    tulu("export", "--model_dir", tmp_path / "run", "--output", tmp_path / "near", "--merge")
    assert files(tmp_path / "near") == files(tmp_path / "merged")
    capsys.readouterr()
    tulu("generate", "--model", far / "run", "--prompt", "Hi", "--max_new_tokens", "2")
    assert "tokens in" in capsys.readouterr().err


def test_torch_files_are_read_where_they_lie(torch, far, near, tmp_path):
    state = {n: torch.from_numpy(t) for n, t in
             read_tensors(near[0] / "base" / "model.safetensors").items()}  # fmt: skip
    torch.save(state, tmp_path / "pytorch_model.bin")
    upload(tmp_path / "pytorch_model.bin", far / "old" / "pytorch_model.bin")
    upload(near[0] / "base" / "config.json", far / "old" / "config.json")
    left, right = hf.load(far / "old"), hf.load(near[0] / "base")
    assert left[0] == right[0]
    jax.tree.map(np.testing.assert_array_equal, left[1], right[1])
    cut = (far / "old" / "pytorch_model.bin").read_bytes()[:-20]
    (far / "old" / "pytorch_model.bin").write_bytes(cut)
    with pytest.raises(ValueError, match="torch file is truncated or damaged"):
        hf.open_folder(far / "old")
    assert json.loads((far / "old" / "config.json").read_text())
