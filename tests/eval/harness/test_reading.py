"""Result folders: what is read of them, and what is said of those that are damaged."""

import json
import re

import pytest

from eval.harness.reading import read_result, read_suite
from tests.eval.results import row, write_result
from tulu_jax.errors import DataError

ROWS = [row("a", 1), row("b", 0, cluster="c", group="g"), row("é", 0.5, prompt="lone \ud800")]
AGAIN = re.escape("run `tulu eval` again with the same --save_dir: it goes on where it stopped")


@pytest.fixture
def folder(tmp_path):
    return write_result(tmp_path / "gsm_cot", ROWS)


def predictions(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "predictions.jsonl").write_bytes(data)


def change(folder, **fields):
    path = folder / "run.json"
    run = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in run.items() if v != "absent"}))


def test_a_result_is_read_back(folder):
    result = read_result(folder)
    assert (result.task, result.model, result.value, result.n) == ("gsm_cot", "tulu-7b", 0.5, 3)
    assert [(i.id, i.value, i.binary) for i in result.instances] == [
        ("a", 1.0, True), ("b", 0.0, True), ("é", 0.5, False)]  # fmt: skip
    assert (result.instances[1].cluster, result.instances[1].group) == ("c", "g")
    assert list(result.texts(result.instances[::-1])) == ROWS[::-1]
    assert result.scale == 100


def test_failures_and_what_nobody_scored_are_no_zeros(folder):
    rows = [row("a", 1), row("b", 0, error="timed out", correct=False), row("c", 0, correct=None)]
    result = read_result(write_result(folder, rows))
    assert [i.id for i in result.scored] == ["a"]
    assert [i.id for i in result.failed] == ["b"]


def test_ids_of_samples_name_their_problem(folder):
    names = ["HumanEval/0#3", "C#", "plain", "a#b"]
    result = read_result(write_result(folder, [row(name, 1) for name in names]))
    assert [i.problem for i in result.instances] == ["HumanEval/0", "C#", "plain", "a#b"]


def test_blank_lines_and_a_last_line_without_its_end_are_read(folder):
    predictions(
        folder, "\n".join(json.dumps(r) for r in [ROWS[0], *ROWS[1:]]).replace("\n", "\n\n")
    )
    result = read_result(folder)
    assert list(result.texts(result.instances)) == ROWS


DAMAGED = {
    b'{"id": "a", "correct": true}\n{"id": "b", "cor': "is cut off in its last line - got .*2",
    b'{"id": "a"\n{"id": "b"}\n': "holds a line that is no JSON - got .* line 1",
    b"[1]\n": "holds a line that is no object - got a JSON list at .*line 1",
    b'{"id": 3}\n': "wrong field 'id' - got 3 at .*line 1 - expected text",
    b'{"id": "a", "correct": 1}\n': "wrong field 'correct' - got 1 at .* - expected true, false",
    b'{"id": "a", "score": "1"}\n': "wrong field 'score' - got '1' at .* - expected a finite",
    b'{"id": "a", "score": 1e999}\n': "wrong field 'score' - got inf at",
    b'{"id": "a", "score": NaN}\n': "wrong field 'score' - got nan at",
    b'{"id": "a", "group": 4}\n': "wrong field 'group' - got 4 at .* - expected text or null",
    b'{"id": "a", "cluster": [4]}\n': r"wrong field 'cluster' - got \[4\] at",
    b'{"id": "a", "id": "b"}\n': "holds a line that is no JSON - got the field id twice",
    b'{"id": "a"}\n{"id": "a"}\n': "has an id twice - got 'a' at .*line 2",
    b'{"id": "\xff"}\n': "holds a line that is no JSON - got 'utf-8' codec",
    b"<!doctype html>": r"holds no JSON lines - got a web page \(HTML\)",
    b"\x1f\x8b\x08": "holds no JSON lines - got a gzip file at .* - unpack it",
    b"version https://git-lfs.github.com/spec/v1": "holds no JSON lines - got a Git LFS pointer",
    b"": "has fewer instances than run.json counts - got 0 at .* - expected 3",
    b'{"id": "a"}\n': "has fewer instances than run.json counts - got 1 at .* - expected 3",
}


@pytest.mark.parametrize("content", DAMAGED, ids=lambda c: c.decode("latin-1")[:40])
def test_damaged_predictions(folder, content):
    predictions(folder, content)
    with pytest.raises(DataError, match=f"^predictions.jsonl:? {DAMAGED[content]}"):
        read_result(folder)


def test_every_cut_of_a_file_is_noticed(tmp_path):
    folder = write_result(tmp_path, ROWS)
    whole = (folder / "predictions.jsonl").read_bytes()
    for size in range(len(whole) - 1):  # without its last line break it is whole
        predictions(folder, whole[:size])
        with pytest.raises(DataError, match=r"is cut off in its last line|has fewer instances"):
            read_result(folder)


def test_missing_files(folder):
    (folder / "predictions.jsonl").unlink()
    with pytest.raises(DataError, match=f"predictions.jsonl is missing - at .* - {AGAIN}"):
        read_result(folder)
    (folder / "predictions.jsonl").mkdir()
    with pytest.raises(
        DataError, match=r"predictions.jsonl cannot be read - got Is a directory at"
    ):
        read_result(folder)
    (folder / "run.json").unlink()
    with pytest.raises(DataError, match=f"run.json is missing - at .* - {AGAIN}"):
        read_result(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "absent", "'task' - got nothing at .*run.json - expected text"),
        ("task", "", "'task' - got '' at"),
        ("n", 3.5, "'n' - got 3.5 at .* - expected a whole number"),
        ("n", True, "'n' - got True at"),
        ("n", -1, "'n' - got -1 at"),
        ("value", 10**400, "'value' - got 1000"),
        ("value", 1e300, r"'value' - got 1e\+300 at"),
        ("value", "0.3", "'value' - got '0.3' at .* - expected a finite number or null"),
        ("value", float("nan"), "'value' - got nan at"),
        ("stderr", [1], r"'stderr' - got \[1\] at"),
        ("higher_is_better", 1, "'higher_is_better' - got 1 at .* - expected true or false"),
        ("model", "llama", "'model' - got 'llama' at .* - expected an object"),
        ("model", {"name": "a", "fingerprint": [1]}, r"'fingerprint' - got \[1\] at .*, model"),
        ("model", {}, "'name' - got nothing at .*run.json, model - expected text"),
    ],
)
def test_wrong_fields_of_the_run(folder, field, value, message):
    change(folder, **{field: value})
    with pytest.raises(DataError, match=f"run.json: wrong field {message}"):
        read_result(folder)


def test_a_cut_run_file(folder):
    (folder / "run.json").write_text('{"task": "gs')
    with pytest.raises(DataError, match=f"run.json is not a JSON object - got .* - {AGAIN}"):
        read_result(folder)


def test_a_suite_names_what_is_not_finished(tmp_path, folder):
    write_result(tmp_path / "bbh", ROWS, task="bbh_cot")
    (write_result(tmp_path / "mmlu", ROWS, task="mmlu_0shot") / "run.json").unlink()
    (tmp_path / "logs").mkdir()
    results, left_out = read_suite(tmp_path)
    assert [r.task for r in results] == ["bbh_cot", "gsm_cot"]
    assert len(left_out) == 1 and "mmlu is not finished (run.json is missing)" in left_out[0]
    assert [r.task for r in read_suite(folder)[0]] == ["gsm_cot"]


def test_what_is_no_suite(tmp_path, folder):
    with pytest.raises(DataError, match=r"the results' folder is not there - at .*nothing"):
        read_suite(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"the results' folder is a file, not a folder - at"):
        read_suite(folder / "run.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"no results lie here - at .* - expected a folder with run"
    ):
        read_suite(tmp_path / "empty")
    write_result(tmp_path / "again", ROWS)
    with pytest.raises(DataError, match="two folders hold results of one task - got 'gsm_cot' at"):
        read_suite(tmp_path)


def test_texts_of_a_file_that_changed(folder):
    result = read_result(folder)
    predictions(folder, '{"id": "another"}\n')
    with pytest.raises(DataError, match=r"predictions.jsonl has changed while it was read - at"):
        list(result.texts(result.instances))
