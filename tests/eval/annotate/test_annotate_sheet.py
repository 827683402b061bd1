"""Sheets that people have: the released one, exports, broken and hostile ones."""

import csv
import doctest
import io
import json
import random

import openpyxl
import pytest

from eval.annotate import records, sheet
from eval.annotate.records import COLUMNS, Annotation
from eval.annotate.sheet import FORMATS, defuse, fuse, read_sheet, row_of, write_rows
from tulu_jax.errors import DataError

NASTY = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "'tis", "", "a=1", "ü\n=2",
         '=HYPERLINK("http://x","y")', "=cmd|' /C calc'!A0"]  # fmt: skip


def annotation(text, i=0):
    return Annotation("x", ("m", "n"), (True, False), "tie", text or "eve", 1.5 + i, prompt=text,
                      completions=(text, text), comment=text, quality="hard", id=i)  # fmt: skip


def test_docstring_examples():
    assert doctest.testmod(sheet).failed == 0
    assert doctest.testmod(records).failed == 0


def test_the_released_sheet(shared):
    found, blank = read_sheet(shared / "eval_data" / "human_eval" / "eval_annotations_tulu_1.xlsx")
    assert (len(found), blank) == (1150, 152)
    assert {len(one.models) for one in found} == {2}
    assert len({one.evaluator for one in found}) == 16


@pytest.mark.parametrize("name", FORMATS)
def test_a_sheet_comes_back(tmp_path, name):
    given = [annotation(text, i) for i, text in enumerate(NASTY)]
    path = tmp_path / f"sheet.{name}"
    with open(path, "wb") as stream:
        assert write_rows([row_of(one) for one in given], name, stream) == 0
    found, blank = read_sheet(path)
    if name == "xlsx":  # XML has no carriage return of its own
        given = [one for one in given if "\r" not in one.prompt]
        found = [one for one in found if one.id != 5]
    assert (found, blank) == (given, 0)


def test_no_cell_is_a_formula():
    rows = [row_of(annotation(text, i)) for i, text in enumerate(NASTY)]
    for name in ("csv", "xlsx"):
        stream = io.BytesIO()
        write_rows(rows, name, stream)
        if name == "csv":
            cells = [c for row in csv.reader(io.StringIO(stream.getvalue().decode())) for c in row]
        else:
            book = openpyxl.load_workbook(io.BytesIO(stream.getvalue()))
            cells = [c for row in book.worksheets[0].iter_rows() for c in row]
            assert "f" not in {c.data_type for c in cells}
            cells = [str(c.value or "") for c in cells]
        assert len(cells) > 100
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]


def test_every_text_survives_defusing():
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices("'=+-@\ta\n", k=rng.randrange(6)))
        assert fuse(defuse(text)) == text
        assert defuse(text)[:1] not in set("=+-@\t")


def test_what_xlsx_cannot_hold_is_told():
    stream = io.BytesIO()
    assert write_rows([row_of(annotation("x" * 40_000 + "\x01"))], "xlsx", stream) == 3 + 1 + 1
    book = openpyxl.load_workbook(io.BytesIO(stream.getvalue()))
    assert book.worksheets[0]["D2"].value.endswith("the jsonl export has the whole text]")


def written(tmp_path, rows, name="sheet.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"preference": "A"},
            "unknown preference - got 'A' at sheet.jsonl, row 1 - expected",
        ),
        ({"completion_a_is_acceptable": True}, "unknown acceptability - got 'True'"),
        ({"timestamp": "soon"}, "timestamp is no time - got 'soon'"),
        ({"evaluator": None}, "row lacks an answer - got nothing in evaluator"),
        ({"model_b": "m"}, "one model is compared with itself - got 'm'"),
        ({"model_b": "tie"}, "impossible name of a model - got 'tie'"),
        ({"instance_quality": "odd"}, "unknown instance_quality - got 'odd'"),
        ({"id": "x"}, "id is no number"),
    ],
)
def test_wrong_cells_are_named(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        read_sheet(written(tmp_path, [{**row_of(annotation("p")), **changed}]))


def test_files_that_are_none(tmp_path):
    for name, content, message in (
        ("a.jsonl", b"{", "sheet is no jsonl"),
        ("a.jsonl", b"[1]", "sheet is no jsonl - got line 1 holds a JSON list"),
        ("a.xlsx", b"PK\x03\x04 cut", "sheet is no xlsx"),
        (
            "a.xlsx",
            b"version https://git-lfs.github.com/spec/v1",
            "sheet is no xlsx - got a Git LFS",
        ),
        ("a.csv", b"id,\xff", "sheet is no csv"),
        ("a.tsv", b"", "sheet is of no known format - got a.tsv"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_sheet(tmp_path / name)
    with pytest.raises(DataError, match="sheet is missing"):
        read_sheet(tmp_path / "none.csv")
    with pytest.raises(DataError, match="sheet cannot be read"):
        (tmp_path / "folder.csv").mkdir()
        read_sheet(tmp_path / "folder.csv")


def test_an_empty_sheet_has_the_columns():
    stream = io.BytesIO()
    write_rows([], "csv", stream)
    assert stream.getvalue().decode() == ",".join(COLUMNS) + "\r\n"


def test_a_sheet_without_the_columns_is_told(tmp_path):
    """One separated by semicolons, as spreadsheets of some countries write, had no answers yet."""
    stream = io.BytesIO()
    write_rows([row_of(annotation("p"))], "csv", stream)
    path = tmp_path / "a.csv"
    path.write_bytes(stream.getvalue().replace(b",", b";"))
    with pytest.raises(DataError, match=r"sheet lacks columns - got id;instance_index.* by commas"):
        read_sheet(path)
    row = row_of(annotation("p"))
    row["rater"] = row.pop("evaluator")
    with pytest.raises(
        DataError, match=r"sheet lacks columns - got .*rater.* expected .*evaluator"
    ):
        read_sheet(written(tmp_path, [row]))


def test_a_name_with_a_blank_at_its_end_is_the_same_person(tmp_path):
    row = {**row_of(annotation("p")), "evaluator": "eve ", "model_a": " m", "preference": "tie "}
    (found,), _ = read_sheet(written(tmp_path, [row]))
    assert (found.evaluator, found.models, found.preference) == ("eve", ("m", "n"), "tie")
