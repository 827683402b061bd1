"""Readers of benchmark files, and what they say of damaged ones."""

import gzip
import random

import pytest

from eval.harness.data import read_csv, read_json, read_jsonl, read_text, take, write_jsonl
from tests.eval.asking import SPOILED
from tulu_jax.errors import DataError


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED, ids=lambda v: str(v)[:10])
def test_damaged_downloads_are_told(tmp_path, name, spoil, message):
    path = tmp_path / "data.jsonl"
    data = spoil(b'{"a": 1}\n' * 50)
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{message}.*{path}" if "got" not in message else message):
        read_text(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="benchmark file cannot be read"):
        read_text(tmp_path)


def test_gzip_and_a_byte_order_mark_are_taken_off(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"\xef\xbb\xbfhello"))
    assert read_text(tmp_path / "a") == "hello"


def test_json_that_ends_too_soon_is_told(tmp_path):
    (tmp_path / "a.json").write_text('{"data": [1, 2')
    with pytest.raises(DataError, match=r"benchmark file is no JSON .*a.json"):
        read_json(tmp_path / "a.json")


def test_lines_need_their_fields(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1, "b": "x\u2028y"}\n\n{"a": 2}\n')
    assert [row["a"] for row in read_jsonl(path, "a")] == [1, 2]
    with pytest.raises(DataError, match=r"object lacks a field .* line 3 - expected a, b"):
        read_jsonl(path, "a", "b")
    path.write_text("[1]\n")
    with pytest.raises(DataError, match=r"line is no JSON object - got \[1\]"):
        read_jsonl(path, "a")
    path.write_text('{"a": \n')
    with pytest.raises(DataError, match=r"line is no JSON .* line 1"):
        read_jsonl(path, "a")


def test_csv_is_text_with_a_number_of_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('None,"two\nlines",007\n')
    assert read_csv(path, columns=3) == [["None", "two\nlines", "007"]]
    with pytest.raises(DataError, match=r"another number of columns - got 3 .* expected 4"):
        read_csv(path, columns=4)
    path.write_text('"open,1\n')
    with pytest.raises(DataError, match="benchmark file is no CSV"):
        read_csv(path, columns=2)


def test_what_is_drawn_is_what_random_sample_draws():
    items = list("abcdefgh")
    assert take(items, 3, random.Random(42)) == random.Random(42).sample(items, 3)
    assert take(items, 9, random.Random(42)) == items == take(items, None, random.Random(42))


def test_lines_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    write_jsonl(path, [{"a": "é\ud800"}])
    assert path.read_text() == '{"a": "é\\ud800"}\n'
    with pytest.raises(TypeError):
        write_jsonl(path, [{"a": 1}, {"a": object()}])
    assert path.read_text() == '{"a": "é\\ud800"}\n'
