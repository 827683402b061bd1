"""`tulu data check --write_exclude`, and what `stats`, `inspect` and training make of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_data import TOKENIZER, small, tulu, wide
from tests.inspect import eval_sets
from tests.inspect.test_check_parts import STORY
from tulu_jax.chat import load_tokenizer
from tulu_jax.cli.gin_config import load_train_config, to_gin
from tulu_jax.data.ensure import open_training_data
from tulu_jax.errors import ConfigError, DataError

__all__ = ["small", "wide"]

ONE = ["--num_processes", "1"]
LENGTH = ["--max_length", "256"]


@pytest.fixture
def chat(tmp_path):
    """Forty sound conversations, two copies, a question of GSM, and two broken answers."""
    rows = [(f"n{i}", f"Name {i} things that float.", f"Cork, and {i} others.") for i in range(40)]
    rows += [("story", "Tell me a story.", STORY), ("copy", "Tell me a  STORY.", STORY)]
    rows += [("again", "Tell me a story.", STORY), ("seen", eval_sets.GSM, "She has 47 apples.")]
    rows += [("cut", "List the colours.", "The colours are red, green, blue and"), ("no", "Hi", "")]
    path = tmp_path / "chat.jsonl"
    with open(path, "w") as stream:
        for name, prompt, answer in rows:
            roles = [("user", prompt), ("assistant", answer)]
            messages = [{"role": role, "content": content} for role, content in roles]
            stream.write(json.dumps({"id": name, "messages": messages}) + "\n")
    return path


@pytest.fixture
def checked(tmp_path, chat):
    """The exclude file of a check of `chat`."""
    eval_data = ["--eval_data", str(eval_sets.write_eval_data(tmp_path / "eval"))]
    path = tmp_path / "new" / "out.jsonl"
    assert tulu("check", str(chat), *eval_data, "--write_exclude", str(path), *ONE) == 0
    return path


def task(chat):
    return f"tulu_jsonl_{chat.parent.name}_chat".replace("-", "_")


def rows_of(path):
    first, *rows = map(json.loads, path.read_text().splitlines())
    return first, {row["id"]: row["reason"] for row in rows}, rows


def test_the_file_says_what_and_why(checked):
    first, reasons, rows = rows_of(checked)
    assert reasons == {"copy": "duplicate", "again": "duplicate", "seen": "contaminated",
                       "cut": "broken", "no": "broken"}  # fmt: skip
    assert all(row.keys() == {"task", "id", "reason", "detail"} for row in rows)
    assert first["format"] == "tulu-exclude" and first["split"] == "train"
    (facts,) = first["datasets"].values()
    assert facts["conversations"] == 46
    assert facts["excluded"] == {"broken": 2, "contaminated": 1, "duplicate": 2}
    assert first["kept"].startswith("of each group of duplicates the first")


def test_the_same_check_writes_the_same_bytes(chat, checked, tmp_path, capsys):
    before = checked.read_bytes()
    more = ["--eval_data", str(tmp_path / "eval"), "--write_exclude", str(checked)]
    assert tulu("check", str(chat), *more, "--num_processes", "2") == 0
    assert checked.read_bytes() == before
    out = capsys.readouterr().out
    assert "excluded 5 (broken 2, contaminated 1, duplicate 2)" in out
    assert f"--gin.EXCLUDE={checked}" in out


def test_check_exclude_train(tmp_path, chat, checked, capsys):
    """Over an epoch no excluded row is in a batch, every other is, and the store stays."""
    where = [*TOKENIZER, "--data_dir", str(tmp_path / "data"), *LENGTH]
    assert tulu("prepare", str(chat), *where, *ONE) == 0
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*") if p.is_file()}

    config = load(tmp_path, chat, checked)
    data = open_training_data(config.data)
    texts = decoded(data, config.data.batch_size)
    assert not any(part in text for part in ("STORY.", "47 apples", "colours") for text in texts)
    assert sum("story" in text for text in texts) == 1
    assert [sum(f"Name {i} things" in text for text in texts) for i in range(40)] == [1] * 40
    assert len(texts) == 41 and len(data.stores[0]) == 46 and data.notes == []
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert now == files

    capsys.readouterr()
    report = tmp_path / "stats.json"
    options = ["--exclude", str(checked), "--json", str(report)]
    assert tulu("stats", str(chat), *where, *ONE, *options) == 0
    out = capsys.readouterr().out
    assert out.count("excluded 5 (broken 2, contaminated 1, duplicate 2)") == 2
    content = json.loads(report.read_text())
    assert content["datasets"][0]["examples"] == 41
    assert content["datasets"][0]["excluded"] == {"broken": 2, "contaminated": 1, "duplicate": 2}
    (row,) = content["table1"].values()
    assert row["ours"]["instances"] == 41


def load(tmp_path, chat, exclude):
    settings = {
        "MODEL_DIR": tmp_path / "run",
        "MIXTURE_OR_TASK_NAME": chat,
        "TOKENIZER": TOKENIZER[1],
        "DATA_DIR": tmp_path / "data",
        "EXCLUDE": exclude,
    }
    bindings = [f"{name} = {str(value)!r}" for name, value in settings.items()]
    bindings += ["TASK_FEATURE_LENGTHS = {'targets': 256}", "BATCH_SIZE = 4", "EPOCHS = 1"]
    config = load_train_config(["runs/finetune.gin", "models/llama_tiny.gin"], bindings)
    assert f"DataConfig.exclude = {[str(exclude)]!r}" in to_gin(config)
    return config


def decoded(data, batch_size):
    """The texts of all segments of an epoch's batches."""
    tokenizer = load_tokenizer(TOKENIZER[1])
    found = []
    for step in range(data.train.num_steps(batch_size)):
        batch = data.train.batch(step, batch_size)
        for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True):
            for number in range(1, segments.max() + 1):
                found.append(tokenizer.decode(np.asarray(tokens[segments == number])))
    return found


@pytest.mark.parametrize("stored", [False, True])
def test_inspect_shows_what_is_left(tmp_path, chat, checked, capsys, stored):
    where = [*TOKENIZER, *LENGTH, "--exclude", str(checked)]
    if stored:
        data_dir = ["--data_dir", str(tmp_path / "data")]
        assert tulu("prepare", str(chat), *TOKENIZER, *LENGTH, *data_dir, *ONE) == 0
        where += data_dir
    capsys.readouterr()
    assert tulu("inspect", str(chat), *where, "--n", "100") == 0
    out = capsys.readouterr().out
    assert out.count("carry loss") == 41 and "47 apples" not in out
    page = tmp_path / "page.html"
    assert tulu("inspect", str(chat), *where, "--html", str(page)) == 0
    text = page.read_text()
    kept = {"contaminated": 1, "duplicate": 2, "broken": 2}
    assert all(f'"{reason}":{count}' in text for reason, count in kept.items())
    assert "47 apples" not in text


def test_a_plan_takes_them_off(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text('{"task": "dolly", "id": "dolly_3"}\n')
    out = tmp_path / "plan.json"
    options = ["--dry_run", "--exclude", str(tmp_path / "x.jsonl"), "--json", str(out)]
    assert tulu("stats", "dolly,oasst1", *options) == 0
    assert "excluded, if they are there (not looked up): dolly 1" in capsys.readouterr().out
    (one, _) = json.loads(out.read_text())["datasets"]
    assert one["examples"] == one["upstream"] - 1 and one["excluded"] == 1
    with pytest.raises(DataError, match=r"exclude file is of other tasks than these"):
        tulu("stats", "oasst1", *options)


def test_kinds_are_chosen(tmp_path, chat, capsys):
    path = tmp_path / "x.jsonl"
    write = ["--write_exclude", str(path), *ONE]
    assert tulu("check", str(chat), *write, "--exclude_kinds", "duplicate") == 0
    assert set(rows_of(path)[1]) == {"copy", "again"}
    assert tulu("check", str(chat), *write) == 0
    assert set(rows_of(path)[1]) == {"copy", "again", "cut", "no"}
    assert "evaluation items were not looked for (--eval_data)" in capsys.readouterr().out
    for kind, flag in (("contaminated", "eval_data"), ("over_max_length", "tokenizer")):
        with pytest.raises(ConfigError, match=rf"what is not looked for - got .* - add --{flag}"):
            tulu("check", str(chat), *write, "--exclude_kinds", kind)
    with pytest.raises(ConfigError, match=r"--exclude_kinds without a file to write"):
        tulu("check", str(chat), "--exclude_kinds", "broken")
    before = chat.read_bytes()
    with pytest.raises(DataError, match=r"--write_exclude would replace a file that is read"):
        tulu("check", str(chat), "--write_exclude", str(chat), *ONE)
    with pytest.raises(DataError, match=r"what lies there is no exclude file"):
        tulu("check", "tulu_demo", "--write_exclude", str(chat), *ONE)
    assert chat.read_bytes() == before


def test_data_that_changed_since_the_check_are_said(tmp_path, chat, checked, capsys):
    lines = chat.read_text().splitlines()
    chat.write_text("\n".join(reversed(lines)))
    where = [*TOKENIZER, "--data_dir", str(tmp_path / "data"), *LENGTH, *ONE]
    assert tulu("prepare", str(chat), *where) == 0
    capsys.readouterr()
    assert tulu("stats", str(chat), *where, "--exclude", str(checked)) == 0
    out = capsys.readouterr().out
    assert "was made from other raw files than the store (or the same in another place)" in out
    assert "Run `tulu data check --write_exclude` again" in out


def test_named_datasets_know_their_raw_files(tmp_path, small):
    path = tmp_path / "x.jsonl"
    assert tulu("check", "tulu_small", "--write_exclude", str(path), *ONE) == 0
    assert rows_of(path)[0]["datasets"]["tulu_small"]["raw_files"] == "embedded"
    assert Path(path).stat().st_mode & 0o777 == 0o644
