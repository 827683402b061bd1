"""Every format, whatever the file is called, gives the same records; what is none is named."""

# ruff: noqa: E501
import gzip
import json
import random
import tracemalloc

import pytest
import zstandard

from tasks import jsonl
from tasks.own import files
from tasks.own.files import own_file
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError

from .rows import FORMATS, MESSAGES, SHAPES, as_lines, write

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:44183f\nsize 12\n"


def messages_of(path, **options):
    return [row["messages"] for row in jsonl.read(path, **options)]


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_format_and_shape_gives_the_same_conversations(tmp_path, name, shape):
    assert messages_of(write(tmp_path, name, SHAPES[shape])) == MESSAGES


@pytest.mark.parametrize(
    ("name", "unexpected"),
    [("a.jsonl", False), ("list.jsonl", True), ("lines.json", True), ("table.jsonl", True),
     ("packed.jsonl", False), ("a.csv", False), ("noname", False), ("object.jsonl", True)],
)  # fmt: skip
def test_names_that_say_something_else_are_said(tmp_path, name, unexpected):
    path = write(tmp_path, name, SHAPES["messages"])
    assert own_file(path).unexpected == unexpected
    assert ("whatever its name says" in jsonl.describe(path, **jsonl.OPTIONS)[0]) == unexpected


def test_a_folder_of_all_of_them(tmp_path):
    for name in FORMATS:
        write(tmp_path, name, SHAPES["pairs"])
    for name in (*files.NO_RECORDS, ".hidden.jsonl", "README.md"):
        put(tmp_path, name, '{"a": [1]}')
    rows = list(jsonl.read(tmp_path, name="x"))
    assert [row["messages"] for row in rows] == MESSAGES * (len(FORMATS) - 1)  # `noname` is not
    assert [row["id"] for row in rows] == [f"x_{n}" for n in range(len(rows))]
    lines = jsonl.describe(tmp_path, **jsonl.OPTIONS)
    assert len(lines) == 2 * jsonl.DESCRIBED + 1
    assert lines[-1] == f"and {len(FORMATS) - 1 - jsonl.DESCRIBED} files more"


def test_a_folder_of_folders_says_where_the_files_are(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", "a.parquet", SHAPES["pairs"])
    with pytest.raises(DataError, match=r"folder has no conversations - at .* - name .*/data$"):
        messages_of(tmp_path)
    (tmp_path / "data" / "a.parquet").rename(tmp_path / "data" / "a.arrow")
    with pytest.raises(
        DataError, match=r"folder has no conv.* \.arrow files as Parquet: dataset\.to"
    ):
        messages_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "[]".encode("utf-16"), r"got UTF-16 text at .*a.jsonl - exp.* iconv -f UTF-16"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16-le"), r"got UTF-16 text at"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16-be"), r"got UTF-16 text at"),
        ("a.csv", "prompt,completion".encode("utf-16-le"), r"got UTF-16 text at .*a.csv"),
        ("a.xlsx", b"PK\x03\x04abc", r"got a zip archive at .* - save the sheet as CSV"),
        ("a.jsonl", LFS, r"got a Git LFS pointer .* git lfs pull"),
        ("a.parquet", LFS, r"got a Git LFS pointer .* git lfs pull"),
        ("a.json", "<!DOCTYPE html><p>", r"got a web page \(HTML\) at .* what a server sent"),
        ("a.jsonl", b"\xfd7zXZ\x00abc", r"got an xz file at .* - unpack or convert it"),
        ("a.jsonl", b"PK\x03\x04abc", r"got a zip archive at"),
        ("a.arrow", b"ARROW1\0\0", r"got an Arrow file at .*to_parquet"),
        ("a.gz", gzip.compress(LFS, mtime=0), r"got a Git LFS pointer .*, in a gzip file at"),
        ("a.gz", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), r"got a gzip file, in a gzip file at"),
        ("a.jsonl", b"", r"raw file is empty - at .* - fill it or leave it out"),
        ("a.jsonl", b" \n ", r"raw file is empty - at"),
        ("a.gz", gzip.compress(b"", mtime=0), r"raw file is empty - at"),
        ("a.parquet", b"PAR1xxxx", r"Parquet file cannot be read - got .* - write or copy it again"),
        ("a.jsonl.gz", gzip.compress(as_lines(SHAPES["pairs"]), mtime=0)[:-9], r"packed file is damaged or"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 999, mtime=0)[:15] + b"xxxxxxxxxxxx", r"packed file is damaged"),
        ("a.zst", zstandard.compress(as_lines(SHAPES["pairs"]))[:-9], r"damaged or cut off - got it ends"),
        ("a.zst", b"\x28\xb5\x2f\xfd" + b"x" * 40, r"packed file is damaged or cut off"),
        ("a.json", "prompt,completion\nq,a\n", r"file is not JSON - got 'prompt,completion.* a table is called .csv"),
        ("notes.txt", "Hello", r"file of conversations has another format - got notes.txt .*jsonl.* a table is "
         r"called .csv or .tsv"),
        ("a.json", '{"prompt": "a",\n"completion": "b"},\n{"prompt": "c",\n"completion": "d"}\n',
         r"malformed .* line 2 - expected \[ before the first record and \] after the last"),
        ("a.json", json.dumps({"prompt": {"0": "a", "1": "b"}, "completion": {"0": "c", "1": "d"}}),
         r"object holds columns, not records - got fields prompt, completion .*orient='records'"),
        ("a.json", json.dumps({"instruction": ["a", "b"], "output": ["c", "d"]}),
         r"object holds columns, not records - got fields instruction, output"),
        ("a.jsonl", json.dumps(SHAPES["pairs"][0], indent=1) + "\n{}",
         r"a record is spread over several lines - got one from line 1 to 4 .*one record a line"),
        ("a.json", json.dumps({"train": SHAPES["pairs"], "test": SHAPES["pairs"]}),
         r"object holds more than one list of records - got 'train' and 'test' .* file of its own"),
        ("a.json", '{"data": [{"prompt": "a", "completion": "b"}, ', r"malformed .* mend it there"),
        ("a.json", '{"a": 1, "a": 2}', r"object has a key twice - got 'a'"),
        ("a.json", '{"data": [{"prompt": "a", "completion": "b"}]} x', r"nothing after the closing }"),
        ("a.json", '{x: 1}', r"malformed .* a field's name in quotes"),
        ("a.csv", "prompt,completion,prompt\n", r"table has a column twice - got 'prompt' at .*line 1"),
        ("a.csv", b"prompt,completion\na,\xff\n", r"file is not UTF-8 - got byte 0xff at .*a.csv, after"),
        ("a.csv", 'prompt,completion\na,"b\nc,d\n', r"cell with quotes is not closed .*line 2"),
    ],
)  # fmt: skip
def test_files_that_are_refused_whatever_the_faults(tmp_path, name, content, message):
    path = put(tmp_path, name, content)
    with pytest.raises(DataError, match=message):
        list(jsonl.read(path, faults=Faults()))


@pytest.mark.parametrize("content", ["[\n]", '{"data": []}', "prompt,completion\n"])
def test_files_without_a_record(tmp_path, content):
    name = "a.csv" if content[0] == "p" else "a.json"
    if content[0] == "{":
        with pytest.raises(DataError, match=r"record has no conversation - got fields data"):
            messages_of(put(tmp_path, name, content))
    else:
        assert messages_of(put(tmp_path, name, content)) == []


def test_one_record_is_a_file_too(tmp_path):
    for shape in ("messages", "sharegpt", "pairs"):
        row = SHAPES[shape][0] | {"tools": [{"type": "function"}], "meta": {"a": [{"b": 1}]}}
        for name in ("a.json", "a.jsonl"):
            for indent in (None, 1):
                path = put(tmp_path, name, json.dumps(row, indent=indent))
                assert messages_of(path) == MESSAGES[:1]


def test_a_list_of_messages_in_an_object_is_records_when_it_holds_some(tmp_path):
    path = put(tmp_path, "a.json", json.dumps({"conversations": SHAPES["sharegpt"]}))
    assert messages_of(path) == MESSAGES


def test_bad_rows_are_named_with_their_place_and_reading_goes_on(tmp_path):
    faults = Faults()
    text = 'prompt,completion\na,b\nc\n"x" y,z\n\n"two\nlines",e\nf,g,h\n'
    assert [m[0]["content"] for m in messages_of(put(tmp_path, "a.csv", text), faults=faults)] == [
        "a", "two\nlines",
    ]  # fmt: skip
    assert (faults.records, faults.skipped) == (5, 3)
    first, second, third = faults.messages
    assert "row has another number of cells than the first - got 1 at" in first
    assert first.endswith("- put cells with commas or line ends in double quotes")
    assert "a.csv, line 3 - expected 2" in first and "a.csv, line 8" in third
    assert "cell with quotes is not closed or goes on after them" in second and "line 4" in second

    text = '{"messages": [}\n' + as_lines(SHAPES["messages"]).decode()
    faults = Faults()
    assert messages_of(put(tmp_path, "a.jsonl", text), faults=faults) == MESSAGES
    assert "malformed" in faults.messages[0] and faults.messages[0].endswith("mend it there")


def test_keys_that_are_there_twice_are_faults(tmp_path):
    rows = (
        '{"prompt": "a", "completion": "b", "completion": "c"}',
        '{"prompt": "a", "completion": ""}',
    )
    for name, text in (("a.jsonl", "\n".join(rows)), ("a.json", f"[{','.join(rows)}]"),
                       ("b.json", f'{{"data": [{",".join(rows)}]}}')):  # fmt: skip
        faults = Faults()
        assert len(messages_of(put(tmp_path, name, text), faults=faults)) == 1
        assert faults.messages[0].startswith("object has a key twice - got 'completion' at")
        assert faults.messages[0].endswith("line 1 - expected each key once")


def test_text_that_is_no_utf8_in_parquet_is_one_bad_row(tmp_path):
    import pyarrow
    from pyarrow import parquet

    broken = pyarrow.array([b"good", b"\xff\xfe", b"fine"]).view(pyarrow.string())
    table = pyarrow.table({"prompt": broken, "completion": ["a", "b", "c"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    faults = Faults()
    rows = messages_of(tmp_path / "a.parquet", faults=faults)
    assert [m[0]["content"] for m in rows] == ["good", "fine"]
    assert faults.messages == [f"text is not UTF-8 - at {tmp_path}/a.parquet, row 2"]


def test_lists_as_text_in_tables(tmp_path):
    text = 'messages\n"[{""role"": ""user"", ""content"": ""Hi""}]"\n[x\n"[{""a"": 1, ""a"": 2}]"\n'
    faults = Faults()
    rows = messages_of(put(tmp_path, "a.csv", text), faults=faults)
    assert rows == [[{"role": "user", "content": "Hi"}]]
    assert "column 'messages' is no JSON list - got '[x' at" in faults.messages[0]
    assert "object has a key twice" in faults.messages[1]


@pytest.mark.parametrize("name", ["a.jsonl", "data.json", "a.jsonl.gz", "a.jsonl.zst", "a.csv",
                                  "a.parquet"])  # fmt: skip
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    rows = [{"prompt": f"{n} " + "x" * 1000, "completion": "y"} for n in range(12_000)]
    path = write(tmp_path, name, rows)
    del rows
    tracemalloc.start()
    assert sum(1 for _ in jsonl.read(path)) == 12_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # the text alone is 12 MB; arrow's own memory is not seen here


def test_the_first_record_may_be_longer_than_what_is_read_at_once(tmp_path, monkeypatch):
    rows = [{"prompt": "x" * 3_000_000, "completion": "y"}, *SHAPES["pairs"]]
    for name in ("a.jsonl", "lines.json", "a.json", "data.json", "a.jsonl.zst"):
        assert messages_of(write(tmp_path, name, rows))[1:] == MESSAGES
    monkeypatch.setattr(files, "LONGEST_LOOK", 1000)
    monkeypatch.setattr("tasks.json_window._PIECE_BYTES", 500)
    for name in ("a.json", "data.json", "object.jsonl", "list.jsonl"):
        assert messages_of(write(tmp_path, name, rows))[1:] == MESSAGES


def broken(rng, data):
    """The bytes, cut off or with some of them changed, put in or taken out."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(4)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            data[at:at] = rng.choice((b"\0", b"\xff\xfe", b'"', b"}", b"[", b"\n", b",", b"\\"))
        else:
            del data[at : at + rng.randint(1, 20)]
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
def test_broken_files_give_records_or_errors_with_their_name(tmp_path, name):
    rng = random.Random(0)
    good = [FORMATS[name](SHAPES[shape] * 5) for shape in ("messages", "pairs", "sharegpt")]
    for number in range(60):
        path = put(tmp_path, name, broken(rng, good[number % 3]))
        faults = Faults()
        try:
            made = messages_of(path, faults=faults)
            assert faults.records >= len(made) + faults.skipped
        except DataError as error:
            assert name in str(error)
        assert all(name in message for message in faults.messages)


def test_spaces_around_names_of_columns_say_nothing(tmp_path):
    (tmp_path / "a.csv").write_text(" prompt, completion\nq, a\n")
    (row,) = jsonl.read(tmp_path / "a.csv")
    assert [message["content"] for message in row["messages"]] == ["q", " a"]
