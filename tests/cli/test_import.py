"""`tulu import`."""

import argparse
import json
import shutil

import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader
from tulu_jax.cli import importer
from tulu_jax.errors import CheckpointError, ConfigError, TokenizerError

from .small_model import tulu, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "hf")


def test_import_makes_checkpoint_0(model, tmp_path, capsys):
    assert tulu("import", "--hf", model, "--model_dir", tmp_path / "run") == 0
    reader = CheckpointReader(tmp_path / "run")
    config, params = hf.load(model)
    assert reader.meta["model"]["num_kv_heads"] == config.num_kv_heads == 1
    assert reader.meta["source"]["format"] == "huggingface"
    np.testing.assert_array_equal(reader.read(("lm_head",)), params["lm_head"])
    printed = capsys.readouterr().out
    assert "weights as float32" in printed
    assert "130.4/130.4 kB" in printed
    assert "checksums of 8 files are right" in printed
    assert (tmp_path / "run" / "tokenizer" / "tokenizer.model").is_file()


def test_dtype_and_a_folder_without_tokenizer(model, tmp_path, capsys):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    out = tmp_path / "run"
    assert tulu("import", "--hf", tmp_path, "--model_dir", out, "--dtype", "bfloat16") == 0
    assert CheckpointReader(out).dtype(("embedding",)).name == "bfloat16"
    assert "none found: give --tokenizer" in capsys.readouterr().out


def test_a_tokenizer_that_is_none_is_not_copied(model, tmp_path):
    shutil.copytree(model, tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(TokenizerError, match=r"tokenizer.model is no .* got a Git LFS pointer"):
        tulu("import", "--hf", tmp_path / "hf", "--model_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_flags_of_a_comparison_that_is_not_asked_for(model, tmp_path, capsys):
    words = ("import", "--hf", model, "--model_dir", tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"--max_kl goes with --verify only - got 0.5 - add --ver"
    ):
        tulu(*words, "--max_kl", "0.5")
    for flag, value, wrong in (
        ("--min_agreement", "2", "got 2 - expected a share from 0 to 1"),
        ("--max_difference", "nan", "got nan - expected 0 or more"),
    ):
        with pytest.raises(SystemExit, match="2"):
            tulu(*words, "--verify", flag, value)
        assert f"{flag}: is out of range - {wrong}" in capsys.readouterr().err


def test_second_import_keeps_the_first(model, tmp_path):
    tulu("import", "--hf", model, "--model_dir", tmp_path)
    with pytest.raises(CheckpointError, match="already holds checkpoints"):
        tulu("import", "--hf", model, "--model_dir", tmp_path)


def test_bad_folder_makes_nothing(tmp_path):
    (tmp_path / "hf").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        tulu("import", "--hf", tmp_path / "hf", "--model_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--hf", "--meta"])
def test_a_file_in_place_of_the_folder(model, tmp_path, flag):
    file = model / "model.safetensors"
    with pytest.raises(
        ConfigError, match=rf"{flag} is a file, not a folder - got .* give its folder"
    ):
        tulu("import", flag, file, "--model_dir", tmp_path / "run")


def test_the_tokenizer_of_the_folder_above_is_not_taken(model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "up" / "hf")
    (tmp_path / "up" / "hf" / "tokenizer.model").rename(tmp_path / "up" / "tokenizer.model")
    for name in ("tokenizer.json", "checksums.json"):
        (tmp_path / "up" / "hf" / name).unlink()
    tulu("import", "--hf", tmp_path / "up" / "hf", "--model_dir", tmp_path / "run")
    assert "tokenizer  none found" in capsys.readouterr().out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        tulu("import", "--help")
    assert "tulu export --model_dir" in capsys.readouterr().out


def test_rows_for_new_tokens(model, tmp_path, capsys):
    words = ("--hf", model, "--model_dir", tmp_path / "run", "--vocab_size", "900")
    assert tulu("import", *words) == 0
    assert "added 4 rows to the vocabulary of 896" in capsys.readouterr().out
    assert CheckpointReader(tmp_path / "run").shape(("lm_head",)) == (16, 900)


def test_files_that_changed_since_the_export(model, tmp_path):
    changed = shutil.copytree(model, tmp_path / "hf")
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    words = ("import", "--hf", changed, "--model_dir", tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"got model.safetensors missing or changed"):
        tulu(*words)
    assert not (tmp_path / "run").exists()
    assert tulu(*words, "--skip_checksums") == 0


def test_max_length_is_for_metas_layout(model, tmp_path):
    with pytest.raises(ConfigError, match="--max_length goes with --meta only - got 4096"):
        tulu("import", "--hf", model, "--model_dir", tmp_path, "--max_length", "4096")


def test_metas_tiktoken_file_is_not_copied_which_is_said(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "meta").mkdir()
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    opened = importer._open

    def other_weights(args):
        return opened(argparse.Namespace(**vars(args) | {"hf": str(model), "meta": None}))

    monkeypatch.setattr(importer, "_open", other_weights)
    tulu("import", "--meta", tmp_path / "meta", "--model_dir", tmp_path / "run")
    out = capsys.readouterr().out
    assert "the tokenizer is not copied: tokenizer.model is no tokenizer's file" in out
    assert "got a tiktoken vocabulary" in out and "none found: give --tokenizer" in out
    assert not (tmp_path / "run" / "tokenizer").exists()


def test_tokens_that_the_files_name_otherwise_are_said(model, tmp_path, capsys):
    """It was silent: only training refused them, and exports lost those of generation_config."""
    folder = shutil.copytree(model, tmp_path / "hf")
    (folder / "checksums.json").unlink()
    for name, own in (
        ("config.json", {"eos_token_id": 7, "bos_token_id": 8}),
        ("generation_config.json", {"eos_token_id": [7, 9], "bos_token_id": 5, "pad_token_id": 6}),
    ):
        fields = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(fields | own))
    tulu("import", "--hf", folder, "--model_dir", tmp_path / "run")
    out = " ".join(capsys.readouterr().out.split())
    for said in (
        "note eos_token_id is 7, 9 in generation_config.json and 7 in config.json: each of them",
        "note bos_token_id is 5 in generation_config.json and 8 in config.json: each is kept",
        "note eos_token is token 2 of the tokenizer and 7 in the model's config: each of them ends",
        "note bos_token is token 1 of the tokenizer and 8 in the model's config: texts begin with",
    ):
        assert said in out
    tulu("export", "--model_dir", tmp_path / "run", "--output", tmp_path / "back")
    back = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert back["eos_token_id"] == [7, 9, 2]
    assert (back["bos_token_id"], back["pad_token_id"]) == (5, 6)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["eos_token_id"] == 7
