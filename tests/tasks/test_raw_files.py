"""Every fault in a raw file is named with its file and line."""

import re

import pytest

from tasks.raw_files import read_json_list, read_jsonl, text_field
from tulu_jax.errors import DataError


def write(tmp_path, content, name="rows.json"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_json_list_gives_records_with_their_lines(tmp_path):
    path = write(tmp_path, '[\n  {"a": 1},\n\n  {"a":\n 2}, {"a": 3}\n]\n')
    rows = list(read_json_list(path))
    assert [row for _, row in rows] == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [at for at, _ in rows] == [f"{path}, line {n}" for n in (2, 4, 5)]


def test_jsonl_gives_records_with_their_lines(tmp_path):
    path = write(tmp_path, '\ufeff{"a": "x\u2028y"}\n\n{"a": 2}')
    assert list(read_jsonl(path)) == [
        (f"{path}, line 1", {"a": "x\u2028y"}),
        (f"{path}, line 3", {"a": 2}),
    ]


def test_empty_json_list_has_no_record(tmp_path):
    assert list(read_json_list(write(tmp_path, "[ ]"))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"a": 1},\n{"a": 2', "malformed or truncated JSON - got end of file at .*, line 3"),
        ('[\n{"a": 1},\n{"a" 2}]', "malformed or truncated JSON - got .* at .*, line 3"),
        ('[\n{"a": 1}\n{"a": 2}]', "malformed .*, line 3 - expected a comma or ]"),
        ('[\n{"a": 1},\n]', "malformed .*, line 3 - expected a record after the comma"),
        ('[\n{"a": 1},', "malformed or truncated JSON - got end of file at .*, line 2"),
        ('{"a": 1}', "malformed .*, line 1 - expected a JSON list, starting with"),
        ('[{"a": 1}]\nx', "malformed .*, line 2 - expected nothing after the closing"),
        ("[\n3]", "record has the wrong type - got int 3 at .*, line 2 - expected a JSON object"),
        ("", "raw file is empty - at |raw file is empty"),
        (b'[\n{"a": "\xff"}]', "file is not UTF-8 - got byte 0xff at .*, line 2 - expected UTF-8"),
    ],
)
def test_faults_of_a_json_list(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        list(read_json_list(write(tmp_path, content)))
    assert str(tmp_path / "rows.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{"a": 2', "malformed or truncated JSON - got .* at .*, line 2, column"),
        ('{"a": 1}\n\n[1]\n', r"record has the wrong type - got list \[1\] at .*, line 3"),
        (" \n", "raw file is empty"),
        (b'{"a": 1}\n{"a": "\xe9"}', "file is not UTF-8 - got byte 0xe9 at .*, line 2"),
    ],
)
def test_faults_of_jsonl(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        list(read_jsonl(write(tmp_path, content)))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"cannot read raw file - got No such file"):
        list(read_jsonl(tmp_path / "absent.jsonl"))


def test_missing_field_and_wrong_type():
    with pytest.raises(DataError, match=r"missing field 'output' - got fields a, b at f, line 3"):
        text_field({"a": "", "b": ""}, "output", at="f, line 3")
    with pytest.raises(DataError, match=re.escape("field 'a' has the wrong type - got list [1]")):
        text_field({"a": [1]}, "a", at="f, line 3")
    with pytest.raises(DataError, match=r"field 'a' has the wrong type - got NoneType"):
        text_field({"a": None}, "a", at="f, line 3")
    assert text_field({"a": None}, "a", at="", optional=True) == ""
    assert text_field({}, "a", at="", optional=True) == ""
