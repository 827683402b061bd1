"""`tulu verify` and `tulu import --verify`: what they print, and their exit status."""

import argparse
import json

import pytest

from tests.cli.small_model import write_model
from tulu_jax.cli import importer, verify
from tulu_jax.errors import ConfigError


def tulu(*words):
    parser = argparse.ArgumentParser("tulu")
    subparsers = parser.add_subparsers()
    for command in (importer, verify):
        command.add_parser(subparsers)
    args = parser.parse_args([str(word) for word in words])
    return args.func(args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("verify") / "hf")


@pytest.fixture(scope="module")
def run_dir(folder, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("verify") / "run"
    assert tulu("import", "--hf", folder, "--model_dir", run_dir) == 0
    return run_dir


def test_an_import_can_be_verified_at_once(torch, folder, tmp_path, capsys):
    assert tulu("import", "--hf", folder, "--model_dir", tmp_path / "run", "--verify") == 0
    out = capsys.readouterr().out
    assert "same model: every limit holds" in out
    assert "100.00%" in out


def test_a_changed_folder_is_told_from_the_checkpoint(torch, folder, run_dir, tmp_path, capsys):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is 2 + 3?\n\nName a color.\n")
    words = ("verify", "--hf", tmp_path, "--model_dir", run_dir, "--prompts", prompts)
    assert tulu(*words) == 1
    out = capsys.readouterr().out
    assert "2 prompts" in out
    assert "DIFFERENT activations differ from layer 0, attention norm on" in out
    generous = ("--max_difference", 9, "--max_kl", 99, "--min_agreement", 0)
    assert tulu(*words, *generous) == 0


def test_any_tokens_do_without_a_tokenizer(torch, folder, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((folder / name).read_bytes())
    assert tulu("import", "--hf", bare, "--model_dir", tmp_path / "run", "--verify") == 0
    assert "5 prompts, 160 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n\n", "holds no text"), (b"\xff\xfe", "not UTF-8")]
)
def test_prompts_must_be_text(folder, run_dir, tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        tulu("verify", "--hf", folder, "--model_dir", run_dir, "--prompts", path)


def test_a_model_in_another_layout_has_nothing_to_compare_with():
    parser = argparse.ArgumentParser()
    verify.add_limits(parser)
    args = argparse.Namespace(**vars(parser.parse_args([])), hf=None, model_dir="run", step=None)
    with pytest.raises(ConfigError, match="nothing to compare with"):
        verify.run(args)
