"""`tulu data check`: the command, what it prints and writes, and its exit status."""

import json

import pytest

from tests.cli.test_data import TOKENIZER, small, tulu, wide
from tests.inspect import eval_sets
from tests.inspect.test_check_parts import STORY
from tulu_jax.errors import ConfigError, DataError

__all__ = ["small", "wide"]

ONE = ["--num_processes", "1"]


@pytest.fixture
def dolly(tmp_path):
    """Raw Dolly rows: copies, a question of GSM, an address, and a malformed line.

    The templates make some of the copies differ.
    """
    rows = [{"instruction": f"Name {i} things that float.", "response": f"Cork, and {i} others."}
            for i in range(120)]  # fmt: skip
    rows += [{"instruction": "Tell me a story.", "response": STORY}] * 20
    rows.append({"instruction": eval_sets.GSM, "response": "47"})
    rows.append(
        {"instruction": "Whom do I ask?", "response": "Ask m.lopez@uni-hamburg.de <b>now</b>."}
    )
    lines = [json.dumps(row) for row in rows] + ['{"instruction": ']
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "databricks-dolly-15k.jsonl").write_text("\n".join(lines) + "\n")
    return ["dolly", "--raw_dir", str(tmp_path / "raw"), *ONE]


def test_everything_is_reported(tmp_path, dolly, capsys):
    eval_data = ["--eval_data", str(eval_sets.write_eval_data(tmp_path / "eval"))]
    files = ["--json", str(tmp_path / "out.json"), "--html", str(tmp_path / "out.html")]
    assert tulu("check", *dolly, *eval_data, *files, *TOKENIZER) == 0
    out = capsys.readouterr().out
    for text in ("exact duplicates", "secrets", "gsm", "skipped records", "dolly"):
        assert text in out
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["skipped"] == {"tulu_dolly": 1}
    assert content["datasets"]["tulu_dolly"]["conversations"] == 142
    assert content["options"]["ngram"] == 8
    page = (tmp_path / "out.html").read_text()
    assert "Overlap with evaluation sets" in page
    for text in (out, json.dumps(content), page):
        assert "lopez" not in text


def test_limits_decide_the_exit_status(dolly, capsys):
    assert tulu("check", *dolly, "--fail_above", "exact_duplicates=0.5") == 0
    limits = ["--fail_above", "secrets=0.5", "--fail_above", "exact_duplicates=0.001"]
    assert tulu("check", *dolly, *limits) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("exact_duplicates: ") and "% is above the limit of 0.10%" in error
    with pytest.raises(ConfigError, match=r"not a limit for --fail_above"):
        tulu("check", *dolly, "--fail_above", "typos=1")


def test_a_task_without_raw_files(small, capsys):
    assert tulu("check", "tulu_small", *ONE) == 0
    assert "small" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path, dolly):
    with pytest.raises(DataError, match=r"dataset dolly is read from its raw files - .*--raw_dir"):
        tulu("check", "dolly", *ONE)
    (tmp_path / "sharegpt").mkdir()
    for part in (1, 2):
        name = f"sg_90k_part{part}_html_cleaned.json"
        (tmp_path / "sharegpt" / name).write_text("[]")
    with pytest.raises(DataError, match=r"split by token counts - name a tokenizer with --tok"):
        tulu("check", "sharegpt", "--raw_dir", str(tmp_path), *ONE)
    with pytest.raises(DataError, match=r"no evaluation data"):
        tulu("check", *dolly, "--eval_data", str(tmp_path))


def test_too_many_bad_records_stop_the_check(tmp_path):
    (tmp_path / "databricks-dolly-15k.jsonl").write_text('{"instruction": 1}\n' * 3)
    with pytest.raises(DataError, match=r"too many bad records"):
        tulu("check", "dolly", "--raw_dir", str(tmp_path), *ONE)


def test_help(capsys):
    with pytest.raises(SystemExit):
        tulu("check", "--help")
    assert "--fail_above" in capsys.readouterr().out
