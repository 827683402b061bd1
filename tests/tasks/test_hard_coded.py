"""The spreadsheet of fixed answers, as often as asked for."""

import random
import sys

import pytest

from tasks import read_conversations
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError

openpyxl = pytest.importorskip("openpyxl")

FILE = "hard_coded_examples.xlsx"
ROWS = [
    ("Prompt", "Output"),
    ("Who are you?", "I am Tulu."),
    ("Who made you?", "Claude, ChatGPT and OpenAI did not.\nPeople did."),
]


def write(folder, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(folder / FILE)
    return folder / FILE


def read(folder, name="hard_coded", **options):
    return list(read_conversations(name, folder, **options))


def test_rows_become_conversations(tmp_path):
    write(tmp_path, ROWS)
    assert read(tmp_path)[0] == {
        "dataset": "hard_coded",
        "id": "hard_coded_0",
        "messages": [
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "I am Tulu."},
        ],
    }
    assert len(read(tmp_path)) == 2


def test_tulu_2_repeats_the_sheet_and_filters_nothing(tmp_path):
    write(tmp_path, ROWS)
    rows = read(tmp_path, "tulu_v2_hard_coded")
    assert [row["id"] for row in rows] == ["hard_coded_0", "hard_coded_1"] * 10
    assert rows[:2] == read(tmp_path) and rows == rows[:2] * 10


def test_columns_are_found_by_name_and_empty_rows_passed_over(tmp_path):
    write(tmp_path, [("Output", "Note", "Prompt"), ("a", "x", "q"), (), ("b", None, "r")])
    texts = [[message["content"] for message in row["messages"]] for row in read(tmp_path)]
    assert texts == [["q", "a"], ["r", "b"]]


def test_a_bad_row_is_named(tmp_path):
    write(tmp_path, [*ROWS, ("Why?", None), (3, "x"), ("ok", "ok")])
    with pytest.raises(
        DataError, match=r"column 'Output' has the wrong type - got NoneType .*xlsx, line 4"
    ):
        read(tmp_path)
    faults = Faults()
    assert len(read(tmp_path, faults=faults)) == 3
    assert faults.skipped == 2 and "line 5 - expected text" in faults.messages[1]


def test_a_bad_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read raw file - got No such file at .*xlsx"):
        read(tmp_path)
    (tmp_path / FILE).write_text("<html>Not found</html>")
    with pytest.raises(DataError, match=r"not a spreadsheet - got BadZipFile: .* - expected .xlsx"):
        read(tmp_path)
    write(tmp_path, [("Prompt", "Answer"), ("a", "b")])
    with pytest.raises(DataError, match=r"no column 'Output' - got Prompt, Answer at"):
        read(tmp_path)
    write(tmp_path, [])
    with pytest.raises(DataError, match=r"spreadsheet has no column 'Prompt' - got none"):
        read(tmp_path)


def test_without_the_package(tmp_path, monkeypatch):
    write(tmp_path, ROWS)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"needs the package openpyxl .* - pip install openpyxl"):
        read(tmp_path)


def test_fuzzed_cells_are_converted_or_reported(tmp_path):
    rng = random.Random(0)
    cells = ["a", "é" * 3_000, None, 3, 2.5, True, "", " ", "=1+", "#REF!", "\u2028", "_x0000_"]
    rows = [tuple(rng.choices(cells, k=rng.randint(0, 3))) for _ in range(10_000)]
    write(tmp_path, [ROWS[0], *rows])
    faults = Faults()
    made = read(tmp_path, faults=faults)
    blank = sum(all(cell in (None, "", "=1+") for cell in row) for row in rows)
    assert len(made) + faults.skipped == faults.records == len(rows) - blank
    assert all(", line " in message for message in faults.messages)


def test_fuzzed_files_are_read_or_refused(tmp_path):
    rng = random.Random(1)
    content = write(tmp_path, ROWS).read_bytes()
    refused = 0
    for _ in range(200):
        data = bytearray(content)
        for _ in range(rng.randint(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / FILE).write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            read(tmp_path, faults=Faults())
        except DataError as error:
            refused += 1
            assert FILE in str(error)
    assert refused > 130
