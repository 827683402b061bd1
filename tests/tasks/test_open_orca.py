"""OpenOrca's Parquet rows become conversations with a system prompt, in the shuffled order."""

import random
import sys

import pytest

from tasks import open_orca, read_conversations
from tulu_jax.data.faults import Faults
from tulu_jax.errors import ConfigError, DataError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(tmp_path, count=10, **columns):
    """A file of `count` rows in small row groups; `columns` replaces, and None removes."""
    table = {
        "id": [f"niv.{n}" for n in range(count)],
        "system_prompt": ["" if n % 2 else "Think." for n in range(count)],
        "question": [f"question {n}?" for n in range(count)],
        "response": [f"answer\n{n}" for n in range(count)],
        "unused": list(range(count)),
    } | columns
    table = pyarrow.table({name: values for name, values in table.items() if values is not None})
    parquet.write_table(table, tmp_path / open_orca.FILE, row_group_size=3)
    return tmp_path


def read(folder, **options):
    faults = Faults(strict=False)
    return list(read_conversations("open_orca", folder, faults=faults, **options)), faults


def shuffled(count):
    order = list(range(count))
    random.Random(42).shuffle(order)
    return order


def test_records(tmp_path):
    rows, _ = read(write(tmp_path))
    assert [row["id"] for row in rows] == [f"open_orca_niv.{n}" for n in shuffled(10)]
    first = shuffled(10)[0]
    assert rows[0] == {
        "dataset": "open_orca",
        "id": f"open_orca_niv.{first}",
        "messages": [
            {"role": "system", "content": "" if first % 2 else "Think."},
            {"role": "user", "content": f"question {first}?"},
            {"role": "assistant", "content": f"answer\n{first}"},
        ],
    }


@pytest.mark.parametrize("memory", [1 << 20, 16])
@pytest.mark.parametrize("count", [1, 4, 10, 11, None])
def test_the_first_of_the_shuffled_file(tmp_path, monkeypatch, count, memory):
    monkeypatch.setattr(open_orca, "_MEMORY_BYTES", memory)
    monkeypatch.setattr(open_orca, "_BATCH", 4)
    rows, _ = read(write(tmp_path), num_gpt4=count)
    assert [row["messages"][1]["content"] for row in rows] == [
        f"question {n}?" for n in shuffled(10)[:count]
    ]


def test_no_rows_at_all(tmp_path):
    assert read(write(tmp_path, 0))[0] == []


def test_the_reading_of_tulu_2(tmp_path):
    folder = write(tmp_path, 2, response=["I am GPT-4", "a"])
    rows = list(read_conversations("tulu_v2_open_orca", folder))
    assert [row["id"] for row in rows] == ["open_orca_niv.1"]
    assert open_orca.TULU_V2.options["num_gpt4"] == 30_000


def test_a_repeated_id_gets_a_number(tmp_path):
    rows, _ = read(write(tmp_path, 2, id=["x", "x"]))
    assert [row["id"] for row in rows] == ["open_orca_x", "open_orca_x#2"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"question": ["q", None]}, "field 'question' has the wrong type - got NoneType"),
        ({"question": [1, 2]}, "field 'question' has the wrong type - got int"),
        ({"question": [b"q", b"r"]}, "field 'question' has the wrong type - got dict .'type'"),
        ({"question": [["q"], []]}, "field 'question' has the wrong type - got list"),
    ],
)
def test_bad_rows_are_named_or_skipped(tmp_path, columns, message):
    folder = write(tmp_path, 2, **columns)
    with pytest.raises(DataError, match=message + r".*Augmented.parquet, row [12] "):
        list(read_conversations("open_orca", folder))
    rows, faults = read(folder)
    assert len(rows) + faults.skipped == faults.records == 2


def test_text_that_is_not_utf8_is_one_bad_row(tmp_path):
    broken = pyarrow.array([b"good", b"\xff\xfe", b"fine"]).view(pyarrow.string())
    rows, faults = read(write(tmp_path, 3, response=broken))
    assert len(rows) == 2 and faults.messages == [
        f"text is not UTF-8 - at {tmp_path / open_orca.FILE}, row 2"
    ]


def test_a_missing_column(tmp_path):
    folder = write(tmp_path, system_prompt=None, response=None)
    with pytest.raises(
        DataError, match=r"raw file lacks columns: system_prompt, response - got id"
    ):
        list(read_conversations("open_orca", folder))


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"cannot read raw file - .*Augmented.parquet"):
        list(read_conversations("open_orca", tmp_path))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 50])
def test_a_file_that_is_not_parquet(tmp_path, content):
    (tmp_path / open_orca.FILE).write_bytes(content)
    with pytest.raises(
        DataError, match=r"Parquet file cannot be read - got .*download the file ag"
    ):
        list(read_conversations("open_orca", tmp_path))


def test_damaged_pages(tmp_path):
    path = write(tmp_path) / open_orca.FILE
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(byte ^ 0xFF for byte in content[4:60])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Parquet file cannot be read"):
        list(read_conversations("open_orca", tmp_path))


class Untrue:
    """Metadata that tells wrong numbers of rows."""

    num_row_groups = 1

    def __init__(self, in_groups, in_all):
        self.in_groups, self.num_rows = in_groups, in_all

    def row_group(self, number):
        return Untrue(0, self.in_groups)


@pytest.mark.parametrize(
    ("rows", "message"),
    [((10, 11), "got 10 rows in its groups, 11 in all"), ((11, 11), "got only 3 of 11 rows")],
)
def test_rows_that_are_not_there(tmp_path, monkeypatch, rows, message):
    path = write(tmp_path) / open_orca.FILE
    with parquet.ParquetFile(path) as whole:
        monkeypatch.setattr(parquet.ParquetFile, "metadata", Untrue(*rows))
        monkeypatch.setattr(open_orca, "_open", lambda path: whole)
        with pytest.raises(DataError, match=f"Parquet file cannot be read - {message}"):
            list(read_conversations("open_orca", tmp_path))


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"comes as Parquet, .* - pip install pyarrow"):
        list(read_conversations("open_orca", tmp_path))


def test_a_count_that_cannot_be(tmp_path):
    with pytest.raises(
        ConfigError, match=r"num_gpt4 is too small - got 0 - expected 1 or more, or"
    ):
        read_conversations("open_orca", tmp_path, num_gpt4=0)
