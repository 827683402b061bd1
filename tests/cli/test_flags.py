"""Every path of every command, by one function: whatever a user may write where a path goes."""

import argparse
import os

import pytest

from tulu_jax.cli.evaluate import evaluate_parser
from tulu_jax.cli.flags import (
    model_argument,
    model_or_none,
    model_text,
    path_argument,
    path_text,
    place_argument,
    place_text,
)
from tulu_jax.cli.gin_config import MACROS, load_train_config, parse_overrides
from tulu_jax.cli.main import make_parser
from tulu_jax.errors import ConfigError
from tulu_jax.files import user_path
from tulu_jax.places import address

LOCAL_TYPES = (path_argument, path_text)
PATH_TYPES = (
    *LOCAL_TYPES, place_argument, place_text, model_argument, model_text, model_or_none,
)  # fmt: skip
NO_PATHS = {
    ("tulu data download", "from"),  # a folder or an address
    ("tulu bench train", "model"),  # a recipe's name
    ("tulu train", "gin_file"),  # a path or a recipe's name, see test_gin_config
    ("tulu plan", "gin_file"),
    ("tulu report", "base"),  # a model's name
}
NAMES = ("dir", "file", "tokenizer", "html", "json", "store", "input", "output", "base", "tuned",
         "diff", "hf", "meta", "model", "prompts", "peft", "eval_data", "exclude")  # fmt: skip
SWITCHES = ("json", "gin_file")
"""Names that are flags without a value in some commands."""


def path_flags():
    """(command, flag, its argparse action) of every flag whose name or help speaks of a path."""
    found = []

    def walk(parser, name):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child, sub in action.choices.items():
                    walk(sub, f"{name} {child}")
            elif action.nargs != 0:
                speaks = action.dest in NAMES or action.dest.endswith(("_dir", "_file"))
                is_path = action.type in PATH_TYPES
                if (speaks or is_path) and (name, action.dest) not in NO_PATHS:
                    found.append((name, action.dest, action))

    walk(make_parser(), "tulu")
    walk(evaluate_parser(), "tulu eval")
    return found


FLAGS = path_flags()


def test_there_are_flags_to_look_at():
    assert len(FLAGS) > 40
    assert {name for name, _, _ in FLAGS} > {"tulu import", "tulu generate", "tulu plan"}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: f"{flag[0]} --{flag[1]}")
def test_every_flag_reads_paths_as_users_write_them(tmp_path, monkeypatch, flag):
    action = flag[2]
    assert action.type in PATH_TYPES
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "far" / "deep").mkdir(parents=True)
    os.symlink(tmp_path / "far" / "deep", tmp_path / "link")
    for written, meant in {
        "run": "run",
        "./run/": "run",
        "a/../run": "run",
        "link/../x": "far/x",
        "link/x": "link/x",
        "~/run": "home/run",
        "mein ordner/größe, 1 [x] {y} 'z'": "mein ordner/größe, 1 [x] {y} 'z'",
    }.items():
        assert os.path.abspath(action.type(written)) == str(tmp_path / meant)
        assert user_path(written) == tmp_path / meant
    far = ("gs://bucket/x", "s3://bucket/x", "hf://org/x") * (action.type in LOCAL_TYPES)
    for wrong in ("", "  ", "a\0b", "gs:/x", "gs:x", "az://c/x", *far):
        with pytest.raises(argparse.ArgumentTypeError, match=r"names no file|is (not )?an address"):
            action.type(wrong)


def test_flags_of_models_and_runs_take_addresses(monkeypatch):
    monkeypatch.setattr(address.importlib.util, "find_spec", lambda name: name)
    for name, dest, action in FLAGS:
        if action.type not in LOCAL_TYPES:
            assert str(action.type("gs://bucket/x/")) == "gs://bucket/x", (name, dest)
    assert str(model_text("hf://org/x")) == "hf://org/x"
    with pytest.raises(argparse.ArgumentTypeError, match="is an address that is not supported"):
        place_text("hf://org/x")


SETTINGS = {
    "MODEL_DIR": lambda config: config.model_dir,
    "INITIAL_CHECKPOINT_PATH": lambda config: config.initial_checkpoint,
    "TOKENIZER": lambda config: config.data.tokenizer,
    "DATA_DIR": lambda config: config.data.data_dir,
    "RAW_DIR": lambda config: config.data.raw_dir,
    "EVAL_DATA_DIR": lambda config: config.eval_data_dir,
}


def test_every_setting_that_is_a_path_is_looked_at():
    paths = {name for name in MACROS if name.endswith(("_DIR", "_PATH")) or name == "TOKENIZER"}
    assert paths == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_read_paths_as_users_write_them(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def load(value):
        folder = [] if name == "MODEL_DIR" else ["--gin.MODEL_DIR=x"]
        bindings = parse_overrides([*folder, f"--gin.{name}={value}"])
        return SETTINGS[name](load_train_config(["runs/demo.gin"], bindings))

    for written, meant in {
        "a/../run/": "run",
        "~/run": "home/run",
        "größe, 1 [x] 'z'": "größe, 1 [x] 'z'",
    }.items():
        assert load(written) == str(tmp_path / meant)
    for wrong in ("''", "az://c/x", "gs:/x"):
        words = f"{name} (names no file|is (not )?an address)|is not set"
        with pytest.raises(ConfigError, match=words):
            load(wrong)
