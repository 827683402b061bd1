"""Wrong values for every setting and flag of train, plan, bench and demo: words, no traceback."""

import argparse

import pytest
from thorough import THOROUGH

from tulu_jax.cli import demo
from tulu_jax.cli.gin_config import MACROS
from tulu_jax.cli.main import main, make_parser
from tulu_jax.errors import ConfigError
from tulu_jax.train import bench, loop

VALUES = (
    "", "None", "True", "-1", "1.5", "1e999", "36893488147419103232", "'text'", "[1]", "{'a': 1}",
    "@LoraConfig()", "@OptimizerConfig", "%NOTHING", "az://b/x", "a\0b", "(", "naïve 'quote",
    "\ud800",
)  # fmt: skip
CHOSEN = 1 if THOROUGH else 3
"""Each setting is tried with each third of the values, each value with each third setting."""
TRAIN = ["train", "--gin_file=runs/demo.gin", "--print_config"]


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch, tmp_path, one_parser):
    def refuse(*_args, **_options):
        raise AssertionError("a run was started")

    monkeypatch.setattr(loop, "train", refuse)
    monkeypatch.chdir(tmp_path)


def told(capsys, words):
    """Status and message of a command; argparse's own refusals leave by SystemExit."""
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert status in (0, 2), (words, status, captured.err)
    assert status == 0 or captured.err.strip(), words
    return status, captured.err


def some_values(number):
    """Those that the setting of that number is tried with; the last is right for none."""
    return [*VALUES[number % CHOSEN :: CHOSEN], VALUES[-1]]


@pytest.mark.parametrize("name", MACROS)
def test_any_value_of_a_setting(capsys, name):
    statuses = set()
    for value in some_values(list(MACROS).index(name)):
        folder = [] if name == "MODEL_DIR" else ["--gin.MODEL_DIR=run"]
        statuses.add(told(capsys, [*TRAIN, *folder, f"--gin.{name}={value}"])[0])
    assert 2 in statuses


FIELDS = ("TrainConfig.model", "DataConfig.options", "DataConfig.rates", "DataConfig.seeds",
          "DataConfig.max_examples", "OptimizerConfig.eps", "LlamaConfig.d_model", "x/y.z",
          "MeshConfig.axis_rules", "row_length.feature_lengths", "import", "include", "gin.macro",
          "LlamaConfig", "LlamaConfig.", ".d_model")  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_any_value_of_a_field(capsys, field):
    for value in some_values(FIELDS.index(field)):
        told(capsys, [*TRAIN, "--gin.MODEL_DIR=run", f"--gin.{field}={value}"])


def flags():
    """Every flag of these commands that takes a value, with a command line that else is right."""
    plan = ["plan", "--gin_file=runs/demo.gin", "--topology=cpu:2", "--estimate"]
    lines = {"train": [*TRAIN, "--gin.MODEL_DIR=run"], "plan": plan, "bench": ["bench", "train"],
             "demo": ["demo"]}  # fmt: skip
    commands = next(
        action for action in make_parser()._actions if isinstance(action.choices, dict)
    ).choices
    parsers = {name: commands[name] for name in lines}
    (kinds,) = (action for action in parsers["bench"]._actions if isinstance(action.choices, dict))
    parsers["bench"] = kinds.choices["train"]
    return [
        (lines[name], action.option_strings[-1])
        for name, parser in parsers.items()
        for action in parser._actions
        if action.option_strings and action.nargs != 0
        and not isinstance(action, argparse._HelpAction)
    ]  # fmt: skip


@pytest.mark.parametrize(("line", "flag"), flags(), ids=lambda v: v if isinstance(v, str) else v[0])
def test_any_value_of_a_flag(capsys, monkeypatch, line, flag):
    def stop(*_args, **_options):
        raise ConfigError("all values were taken")

    monkeypatch.setattr(bench, "StepBench", stop)
    monkeypatch.setattr(demo, "_fresh_params", stop)
    # nobody, root neither, can make a file or folder there
    nowhere = "/proc/nowhere/x"
    for value in ("", "-1", "0", "x", "1e999", "nan", "36893488147419103232", nowhere, "[]"):
        told(capsys, [*line, f"{flag}={value}"])


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"\x00" * 64, b"x = ", b"include 'self.gin'\n",
                b"import os\n", b"LEARNING_RATE = 'fast'\n", b"\xef\xbb\xbfBATCH_SIZE = 'x'\n"],
)  # fmt: skip
def test_any_content_of_a_gin_file(capsys, tmp_path, content):
    (tmp_path / "self.gin").write_bytes(content)
    line = ["train", "--gin_file=runs/demo.gin", f"--gin_file={tmp_path / 'self.gin'}"]
    told(capsys, [*line, "--gin.MODEL_DIR=run", "--print_config"])


def test_a_folder_for_a_gin_file(capsys, tmp_path):
    status, text = told(capsys, ["train", f"--gin_file={tmp_path}", "--gin.MODEL_DIR=run"])
    assert status == 2 and "gin file cannot be read" in text
