"""`tulu data stats`: Table 1 from raw files, tokens from stores, plans from counts."""

import json

import pytest

from tasks import demo
from tests.cli.test_data import TOKENIZER, small, tulu, wide
from tulu_jax.errors import ConfigError, DataError

__all__ = ["small", "wide"]


@pytest.fixture
def where(tmp_path):
    return [*TOKENIZER, "--data_dir", str(tmp_path / "data"), "--max_length", "64",
            "--num_processes", "1"]  # fmt: skip


def test_table_1_needs_no_store(tmp_path, small, where, capsys):
    out = tmp_path / "new" / "stats.json"
    assert tulu("stats", "tulu_small", *where, "--json", str(out)) == 0
    text = capsys.readouterr().out
    assert "instances" in text and "not prepared, so without tokens" in text
    content = json.loads(out.read_text())
    assert content["table1"]["tulu_small"]["ours"]["instances"] == 20
    assert content["table1"]["tulu_small"]["paper"] is None
    assert content["not_prepared"] == ["tulu_small"] and content["datasets"] == []


def test_stores_give_tokens_shares_and_packing(tmp_path, small, where, capsys, monkeypatch):
    monkeypatch.setitem(demo.SIZES, "train", 3000)
    prepared = [*TOKENIZER, "--data_dir", str(tmp_path / "data"), "--max_length", "64"]
    assert tulu("prepare", "tulu_small,tulu_demo", *prepared, "--num_processes", "1") == 0
    capsys.readouterr()
    out = tmp_path / "stats.json"
    options = ["--json", str(out), "--batch_size", "8", "--epochs", "3"]
    assert tulu("stats", "tulu_small,tulu_demo", *where, *options) == 0
    text = capsys.readouterr().out
    assert "an epoch" in text and "small train: 20 of 1,000 upstream rows" in text
    content = json.loads(out.read_text())
    small_part = next(d for d in content["epoch"]["datasets"] if d["task"] == "tulu_small")
    assert small_part["examples"] == 20 and small_part["epochs"] == 1.0
    assert sum(d["token_share"] for d in content["epoch"]["datasets"]) == pytest.approx(1)
    rows = content["epoch"]["rows"]
    assert content["epoch"]["steps"] == -(-3 * rows // 8)
    assert 0.8 < content["epoch"]["efficiency"] <= 1
    report = next(d for d in content["datasets"] if d["task"] == "tulu_small")
    assert report["skipped"] == 0 and 0 < report["loss_share"] < 1


def test_raw_files_that_are_not_named_are_left_out(where, capsys):
    with pytest.raises(DataError, match=r"no tokenized store, and no raw files .* --raw_dir"):
        tulu("stats", "dolly", *where)
    assert tulu("stats", "dolly,tulu_demo", *where) == 0
    assert "without numbers: no raw files" in capsys.readouterr().out


def test_raw_files_are_counted(tmp_path, where, capsys):
    row = {"instruction": "cup", "response": "yes"}
    (tmp_path / "databricks-dolly-15k.jsonl").write_text(json.dumps(row) + "\n")
    assert tulu("stats", "dolly", *where, "--raw_dir", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "15,011" in out and "118.1" in out and "written from memory" in out


def test_dry_run_reads_nothing(tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert tulu("stats", "tulu_v1_human_gpt", "--dry_run", "--json", str(out)) == 0
    text = capsys.readouterr().out
    assert "490,694" in text and "168,864" in text
    content = json.loads(out.read_text())
    assert content["examples"] == 490_694 and content["batch_size"] == 128
    assert len(content["datasets"]) == 7


def test_a_tokenizer_must_be_named(small):
    with pytest.raises(ConfigError, match=r"no tokenizer is named - .* --dry_run"):
        tulu("stats", "tulu_small")


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the JSON file - got .* at .*x.json"):
        tulu("stats", "tulu_demo", "--dry_run", "--json", str(tmp_path / "file" / "x.json"))
