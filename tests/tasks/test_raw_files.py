"""Every fault in a raw file is named with its file and line."""

import json
import random
import re
import tracemalloc

import pytest

from tasks import json_window
from tasks.raw_files import (
    read_json_list,
    read_json_object,
    read_jsonl,
    sample_jsonl,
    text_field,
)
from tulu_jax.data.faults import Faults
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


# --- Bad records are left out and reading goes on ---


class Collected(Faults):
    """Faults whose messages are all kept, with the lines they name."""

    def lines(self):
        return [int(re.search(r"line (\d+)", message)[1]) for message in self.messages]


def test_jsonl_goes_on_with_the_next_line(tmp_path):
    lines = [b'{"a": 1}', b"{", b"", b"3", b'{"a": "\xff"}', b"[" * 5000, b"9" * 5000, b'{"a": 2}']
    faults = Collected()
    rows = read_jsonl(write(tmp_path, b"\n".join(lines)), faults)
    assert [row["a"] for _, row in rows] == [1, 2]
    assert faults.lines() == [2, 4, 5, 6, 7]
    assert (faults.records, faults.skipped) == (5, 5)  # the good ones are counted when converted
    assert "nested too deeply" in faults.messages[3]
    assert "a number of too many digits" in faults.messages[4]


def test_jsonl_with_no_line_in_utf8_is_refused_whatever_the_faults(tmp_path):
    with pytest.raises(DataError, match=r"file is not UTF-8 - got byte 0x8b at .*, line 1"):
        list(read_jsonl(write(tmp_path, b"\x1f\x8b\x08\n\xff\xfe"), Faults()))


def test_json_list_goes_on_with_the_next_element(tmp_path):
    deep = "[" * 3000 + '"]"' + "]" * 3000
    elements = ['{"a": 1}', "3", deep, f'{{"a": {deep}}}', f'{{"a": {"9" * 5000}}}', '{"a": 2}']
    faults = Collected()
    path = write(tmp_path, "[\n" + ",\n".join(elements) + "\n]")
    rows = read_json_list(path, faults)
    assert [(at, row["a"]) for at, row in rows] == [
        (f"{path}, line 2", 1),
        (f"{path}, line 7", 2),
    ]
    assert faults.lines() == [3, 4, 5, 6] and faults.skipped == faults.records == 4


@pytest.mark.parametrize("content", ['[{"a": 1}, {"a": 2]', "[" + "[" * 5000, '[{"a": "\xff'])
def test_malformed_json_lists_are_refused_whatever_the_faults(tmp_path, content):
    with pytest.raises(DataError, match=r"malformed|not UTF-8"):
        list(read_json_list(write(tmp_path, content.encode("latin-1")), Faults()))


def test_odd_text_is_kept(tmp_path):
    path = write(tmp_path, '{"a": "x\\u0000\\ud83d\\ude00"}\r\n')
    assert next(read_jsonl(path))[1] == {"a": "x\x00😀"}


def test_messages_stay_short_and_printable(tmp_path):
    record = {"\ud800" * 100: 1} | {f"field {n}": 2 for n in range(100)}
    with pytest.raises(DataError) as caught:
        text_field(record, "a", at="f")
    assert len(str(caught.value).encode()) < 500
    with pytest.raises(DataError) as caught:
        text_field({"a": ["\ud800" * 1000, [[[[1]]]]] * 50}, "a", at="f")
    assert len(str(caught.value).encode()) < 500


# --- Large files ---


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_pieces_may_end_anywhere(tmp_path, monkeypatch, size):
    rows = [{"a": 'é"]\\', "n": -1.5e3, "t": [True, None, {"b": "😀"}]}, {"a": "", "z": 12}]
    path = write(tmp_path, "\ufeff" + json.dumps(rows, indent=1, ensure_ascii=False))
    monkeypatch.setattr(json_window, "_PIECE_BYTES", size)
    assert [row for _, row in read_json_list(path)] == rows
    path = write(tmp_path, ' { "a" : 1, "rows": [{"b": 12}\n, 3], "c": [ ] }\n')
    faults = Collected()
    fields = read_json_object(path, listed="rows", faults=faults)
    assert fields == {"a": 1, "rows": [(f"{path}, line 1", {"b": 12})], "c": []}
    assert faults.lines() == [2]
    path = write(tmp_path, '[\n{"a": 1},\n{"a": tru e}]')
    with pytest.raises(DataError, match=r"got '.*tru e.* at .*, line 3"):
        list(read_json_list(path))


@pytest.mark.parametrize("layout", ["list", "lines"])
def test_memory_does_not_grow_with_the_file(tmp_path, layout):
    path = tmp_path / "rows"
    row = json.dumps({"a": "x" * 1000})
    many = [row] * 20_000
    path.write_text("\n".join(many) if layout == "lines" else "[" + ",\n".join(many) + "]")
    del many
    read = read_jsonl if layout == "lines" else read_json_list
    tracemalloc.start()
    count = sum(1 for _ in read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < 8_000_000 < path.stat().st_size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "malformed .* expected a JSON object, starting with {"),
        ('{"a": 1', "got end of file at .* expected a comma or }"),
        ('{"a" 1}', "line 1 - expected a colon"),
        ('{"rows": []} x', "expected nothing after the closing }"),
        ("{3: 1}", "expected a field's name in quotes"),
        ('{"a": 1,}', "expected a record after the comma"),
        ('{"a": 1}', "missing field 'rows' - got fields a at"),
        ('{"rows": 1}', "field 'rows' has the wrong type - got int 1 at .* expected a list"),
        ('{"rows": [{]}', "malformed .* line 1"),
        (" \n", "raw file is empty"),
        ('{"rows": [], "a": ' + "[" * 3000 + "]" * 3000 + "}", "nested too deeply"),
    ],
)
def test_faults_of_a_json_object(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_json_object(write(tmp_path, content), listed="rows", faults=Faults())


# --- Samples ---


def test_a_sample_is_drawn_as_from_a_list(tmp_path):
    path = write(tmp_path, "\n\n".join(f'{{"a": {n}}}' for n in range(20)))
    made = list(sample_jsonl(path, 5, rng=random.Random(3)))
    assert [row["a"] for _, row in made] == random.Random(3).sample(list(range(20)), 5)
    assert all(at == f"{path}, line {2 * row['a'] + 1}" for at, row in made)
    rng = random.Random(3)
    for count in (None, 20, 21):
        assert list(sample_jsonl(path, count, rng=rng)) == list(read_jsonl(path))
    assert rng.random() == random.Random(3).random()


def test_of_a_sample_only_its_own_faults_are_met(tmp_path):
    path = write(tmp_path, "\n".join(["{}", "{"] * 50))
    faults = Faults()
    good = len(list(sample_jsonl(path, 10, rng=random.Random(0), faults=faults)))
    assert 0 < good < 10 and good + faults.skipped == 10
    with pytest.raises(DataError, match="malformed"):
        list(sample_jsonl(path, 10, rng=random.Random(0)))
