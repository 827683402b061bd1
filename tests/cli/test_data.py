"""`tulu data`: the commands a user types, and what they print."""

import argparse
import json

import pytest

from tasks import demo
from tulu_jax.cli import data
from tulu_jax.data import specs
from tulu_jax.data.specs import DatasetSpec
from tulu_jax.errors import DataError

TOKENIZER = ["--tokenizer", str(demo.TOKENIZER_DIR)]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def small(monkeypatch):
    """An embedded dataset of twenty questions that exists only during the test."""
    monkeypatch.setattr(specs, "_SPECS", dict(specs.all_specs()))

    def read(raw_dir, **_):
        for i in range(20):
            messages = [
                {"role": "user", "content": f"What comes after {i}?"},
                {"role": "assistant", "content": str(i + 1)},
            ]
            yield {"dataset": "small", "id": f"small_{i}", "messages": messages}

    text = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
    expected = {"train": 1000}
    specs.register(
        DatasetSpec(name="small", version="1.0.0", read=read, expected_examples=expected, **text)
    )


def tulu(*arguments):
    parser = argparse.ArgumentParser("tulu")
    data.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", *arguments])
    return args.func(args)


def test_prepare_then_stats(tmp_path, small, capsys):
    where = ["--data_dir", str(tmp_path / "data"), "--max_length", "64"]
    assert tulu("prepare", "tulu_small", *TOKENIZER, *where) == 0
    out = capsys.readouterr().out
    assert "20/20" in out and "small train: 20 of 1,000 upstream rows" in out
    assert f"{tmp_path}/data/tulu_small/train-" in out
    assert tulu("stats", "tulu_small", *TOKENIZER, *where, "--packing", "padded") == 0
    assert "small train" in capsys.readouterr().out


def test_inspect_shows_the_mask(capsys):
    assert tulu("inspect", "tulu_demo", *TOKENIZER, "--n", "2", "--split", "test") == 0
    out = capsys.readouterr().out
    first, second = (item for item, _ in zip(demo.generate("test"), range(2), strict=False))
    assert first["id"] in out and second["id"] in out
    assert "carry loss" in out and "<|assistant|>" in out


def test_inspect_says_what_is_cut_and_dropped(tmp_path, capsys):
    row = {"instruction": "cup " * 50, "response": "yes"}
    (tmp_path / "databricks-dolly-15k.jsonl").write_text(json.dumps(row))
    options = ["--raw_dir", str(tmp_path), "--max_length", "20"]
    assert tulu("inspect", "dolly", *TOKENIZER, *options) == 0
    out = capsys.readouterr().out
    assert "cut off at max_length" in out and "DROPPED: no token carries loss" in out


def test_unknown_task(small):
    with pytest.raises(
        DataError, match=r"unknown dataset or mixture - got 'tulu_smal' .* did you mean tulu_small"
    ):
        tulu("prepare", "tulu_smal", *TOKENIZER)


@pytest.mark.parametrize("command", ["prepare", "stats", "inspect"])
def test_help(command, capsys):
    with pytest.raises(SystemExit):
        tulu(command, "--help")
    assert "--tokenizer" in capsys.readouterr().out
