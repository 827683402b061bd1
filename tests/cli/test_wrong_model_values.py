"""Wrong values for every flag of the commands around models: words and status 2, no traceback."""

import argparse
import contextlib
import io
import os

import jax
import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.peft import save_peft
from tulu_jax.cli.main import main, make_parser
from tulu_jax.models.lora import LoraConfig, abstract_adapters

from .small_model import write_model

HUGE = "9" * 30
NO_PATHS = ["", "  ", "a\0b", "az://bucket/x"]
NO_FOLDERS = [*NO_PATHS, "none", "junk", "empty_file", "empty", "dangling", "loop", "junk/x"]
NO_FILES = [*NO_PATHS, "none", "junk", "empty_file", "empty", "dangling", "loop", "junk/x"]
NO_OUTPUTS = [*NO_PATHS, "junk", "junk/x", "loop/x", "model"]
NUMBERS = ["", "x", "-1", "1.5", "1e3", "nan", HUGE]
FLOATS = ["", "x", "nan", "inf", "-1", "-inf"]
COMMANDS = {
    "import": {"--hf": "model", "--model_dir": "OUT"},
    "export": {"--model_dir": "run", "--output": "OUT"},
    "verify": {"--hf": "model", "--model_dir": "run"},
    "diff make": {"--base": "model", "--tuned": "model", "--output": "OUT"},
    "diff apply": {"--base": "model", "--diff": "diff", "--output": "OUT"},
    "adapter": {"--peft": "peft", "--base": "model", "--model_dir": "OUT"},
    "generate": {"--model": "model", "--input": "in.jsonl", "--output": "OUT"},
    "chat": {"--model": "model"},
}
"""Each command with words that are right; `OUT` is not there yet."""
TEXTS = {
    "--max_shard_size": ["", "x", "-1GB", "\x1b[31m"],
    "--answer_field": ["", "a b", "\x1b"],
    "--chat_template": ["", "x", "\x1b[31m"],
    "--stop": [""],
    "--system": [], "--prompt": [],  # any text is right
}  # fmt: skip
RIGHT = {
    ("verify", "--max_difference", "inf"), ("verify", "--max_kl", "inf"),
    ("generate", "--batch_size", HUGE), ("generate", "--top_k", HUGE), ("chat", "--top_k", HUGE),
    ("generate", "--max_new_tokens", HUGE), ("generate", "--max_length", HUGE),
    ("chat", "--max_new_tokens", HUGE), ("export", "--tokenizer", "none"),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Good and bad things of every kind, by name."""
    root = tmp_path_factory.mktemp("world")
    config = hf.open_folder(write_model(root / "model")).config
    lora = LoraConfig(rank=1, targets=("q_proj",))
    ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), abstract_adapters(config, lora))
    save_peft(root / "peft", config, lora, ones, base="model")
    (root / "in.jsonl").write_text('{"prompt": "Hi"}\n')
    (root / "junk").write_bytes(bytes(range(256)) * 4)
    (root / "empty_file").touch()
    (root / "empty").mkdir()
    os.symlink(root / "nowhere", root / "dangling")
    os.symlink(root / "loop", root / "loop")
    model = root / "model"
    assert tulu("import", "--hf", model, "--model_dir", root / "run")[0] == 0
    made = ("--base", model, "--tuned", model, "--output", root / "diff")
    assert tulu("diff", "make", *made)[0] == 0
    return root


def tulu(*words):
    """The exit status of `tulu WORDS`, and what it said on the error stream."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            status = main([str(word) for word in words])
        except SystemExit as ended:  # argparse
            status = ended.code
    return status, err.getvalue()


def parser_of(command):
    parser = make_parser()
    for word in command.split():
        actions = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = next(actions).choices[word]
    return parser


def wrong_values(command, action, flag):
    """What no user can mean by the flag."""
    if flag in TEXTS:
        return TEXTS[flag]
    if action.choices:
        return [value for value in ("", "int8", "FLOAT32", "nan") if value not in action.choices]
    if action.type in (int, float):
        return NUMBERS if action.type is int else FLOATS
    if COMMANDS[command].get(flag) == "OUT":
        return [*NO_OUTPUTS, "empty"] if command == "generate" else NO_OUTPUTS
    if flag in ("--input", "--prompts"):
        return NO_FILES
    return NO_FOLDERS


def flags_of(command):
    found = {}
    for action in parser_of(command)._actions:
        flag = action.option_strings[-1] if action.option_strings else "--help"
        if flag != "--help" and action.nargs != 0:
            found[flag] = wrong_values(command, action, flag)
    return found


def line_of(world, command, flag, value):
    words = command.split()
    for name, good in {**COMMANDS[command], flag: value}.items():
        given = value if name == flag else good
        first = given.split("/")[0]
        inside = first == "OUT" or (world / first).name in os.listdir(world)
        words.append(f"{name}={world / given if given.strip() and inside else given}")
    return words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag(world, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    before = sorted(path.name for path in world.iterdir())
    for flag, values in flags_of(command).items():
        for value in values:
            if (command, flag, value) in RIGHT:
                continue
            status, said = tulu(*line_of(world, command, flag, value))
            where = f"{command} {flag}={value!r}: {said[-400:]}"
            assert status == 2, where
            assert f"tulu {command.split()[0]}" in said.splitlines()[-1], where
            assert "Traceback" not in said and "Errno" not in said, where
    assert sorted(path.name for path in world.iterdir()) == before, "nothing is left behind"
    assert not list(tmp_path.iterdir())


def test_there_are_flags_of_every_kind():
    found = {flag for command in COMMANDS for flag in flags_of(command)}
    assert {"--hf", "--meta", "--peft", "--seed", "--top_p", "--dtype", "--prompts"} <= found
    assert len(found) > 30


BROKEN = {
    "config.json": [b"", b"{", b"[]", b"\xff", b"null", b'{"architectures": 1}', "folder", "loop"],
    "model.safetensors": [b"", b"x", b"\xff" * 99, b"\2" + b"\0" * 7 + b"{}", "folder", "loop"],
    "tokenizer.model": [b"x", b"\xff" * 99, "folder", "loop"],
    "generation_config.json": [b"{", b"[]", b'{"eos_token_id": "x"}', "loop"],
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_of_a_model_that_are_broken(world, tmp_path, monkeypatch, name):
    """Each file in turn, by each command that reads it; a loop of links is a missing file."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for number, content in enumerate(BROKEN[name]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for path in (world / "model").iterdir():
            if path.name not in (name, "checksums.json"):
                os.link(path, folder / path.name)
        if content == "folder":
            (folder / name).mkdir()
        elif content == "loop":
            os.symlink(folder / name, folder / name)
        else:
            (folder / name).write_bytes(content)
        read = name in ("config.json", "model.safetensors")
        for words in (
            ["import", "--hf", folder, "--model_dir", tmp_path / "run"],
            ["generate", "--model", folder, "--input", world / "in.jsonl", "--max_new_tokens", "1"],
            ["diff", "make", "--base", folder, "--tuned", folder, "--output", tmp_path / "out"],
            ["adapter", "--peft", world / "peft", "--base", folder, "--model_dir", tmp_path / "a"],
        ):
            if words[0] in ("diff", "adapter") and not read:
                continue  # they read no tokenizer, and diffs no settings
            if words[0] == "diff" and name == "config.json":
                continue
            if content in ("folder", "loop") and not read and words[0] == "import":
                continue  # as if it were not there
            status, said = tulu(*words)
            optional = name == "generation_config.json" and content in ("folder", "loop")
            assert status == (0 if optional else 2), (words, content, said[-400:])
            assert "Traceback" not in said, (words, content, said[-400:])
