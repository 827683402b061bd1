"""Sheets of annotations: xlsx, CSV or JSON lines, in the columns of the paper's released one.

A spreadsheet takes a text that begins with = + - or @ for a formula. In CSV and xlsx such a text
has an apostrophe before it, which is taken off again when the sheet is read.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from eval.annotate.records import (
    ACCEPTABLE,
    COLUMNS,
    PREFERENCES,
    QUALITIES,
    Annotation,
    check_models,
)
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import kind_of_file, parse_json

FORMATS = ("jsonl", "csv", "xlsx")
CELL = 32_767
"""Characters that a cell of xlsx holds."""
CUT = " […cut: the jsonl export has the whole text]"

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NUMBERS = ("id", "instance_index")
_MUST = ("instance_id", "model_a", "model_b", "completion_a_is_acceptable",
         "completion_b_is_acceptable", "preference", "evaluator", "timestamp")  # fmt: skip


def defuse(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula.

    >>> defuse("=1+1"), defuse("'=1"), defuse("a=1")
    ("'=1+1", "''=1", 'a=1')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def fuse(text: str) -> str:
    """The text that `defuse` made a cell of.

    >>> fuse("'=1+1"), fuse("''=1"), fuse("'tis"), fuse("-1")
    ('=1+1', "'=1", "'tis", '-1')
    """
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def read_sheet(path: Path) -> tuple[list[Annotation], int]:
    """The annotations of a sheet in its order, and how many rows were blank.

    Raises:
      DataError: the file is missing or damaged, a column is missing, or a cell is not what it must
        be.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise DataError(
            "sheet is of no known format", got=path.name, expected=".xlsx, .csv, .jsonl"
        )
    try:
        kind = kind_of_file(path)
        rows = {"jsonl": _jsonl, "csv": _csv, "xlsx": _xlsx}[suffix](path)
    except FileNotFoundError:
        raise DataError("sheet is missing", at=path) from None
    except OSError as error:
        raise DataError("sheet cannot be read", got=error.strerror or error, at=path) from error
    except (ValueError, KeyError, csv.Error, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"sheet is no {suffix}", got=kind or error, at=path, do="take it anew from its source"
        ) from error
    heads = {name for _, row in rows for name in row if isinstance(name, str)}
    lacking = [name for name in _MUST if name not in heads]
    if rows and lacking:
        raise DataError(
            "sheet lacks columns", got=", ".join(sorted(heads))[:200], at=path,
            expected=", ".join(_MUST), do="name its columns so; CSV is separated by commas",
        )  # fmt: skip
    filled = [(number, row) for number, row in rows if not _is_blank(row)]
    found = [_annotation(row, f"{path.name}, row {number}") for number, row in filled]
    return found, len(rows) - len(filled)


Rows = list[tuple[int, dict[str, Any]]]


def _is_blank(row: dict[str, Any]) -> bool:
    """Whether a row holds no answer: the released sheet has 152 such rows."""
    return all(row.get(name) in (None, "") for name in _MUST if name != "timestamp")


def _jsonl(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} holds a JSON {type(row).__name__}")
            rows.append((number, row))
    return rows


def _csv(path: Path) -> Rows:
    text = path.read_bytes().decode("utf-8-sig")
    csv.field_size_limit(2**30)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return [(n, {k: _fused(v) for k, v in row.items()}) for n, row in enumerate(reader, 2)]


def _xlsx(path: Path) -> Rows:
    book = _openpyxl().load_workbook(path, read_only=True, data_only=True)
    try:
        rows = iter(book.worksheets[0].iter_rows(values_only=True))
        heads = [str(head or "") for head in next(rows, ())]
        return [
            (number, {k: _fused(v) for k, v in zip(heads, row, strict=False)})
            for number, row in enumerate(rows, 2)
        ]
    finally:
        book.close()


def _fused(value: Any) -> Any:
    return fuse(value) if isinstance(value, str) else value


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise ConfigError(
            "openpyxl is not installed", do="pip install 'tulu-jax[annotate]'"
        ) from error
    return openpyxl


def _annotation(row: dict[str, Any], at: str) -> Annotation:
    absent = [name for name in _MUST if row.get(name) in (None, "")]
    if absent:
        raise DataError("row lacks an answer", got=f"nothing in {absent[0]}", at=at,
                        expected=f"columns {', '.join(COLUMNS)}")  # fmt: skip
    text = {name: _text(row.get(name)) for name in COLUMNS}
    # A name with a blank at its end, as hands type it, is no other person or model.
    text |= {name: text[name].strip(" \u00a0") for name in _MUST}
    check_models(text["model_a"], text["model_b"], at)
    yes_a, yes_b = (
        _one_of(text[f"completion_{side}_is_acceptable"], ACCEPTABLE, "acceptability", at) == "yes"
        for side in "ab"
    )
    quality = text["instance_quality"]
    return Annotation(
        instance_id=text["instance_id"],
        models=(text["model_a"], text["model_b"]),
        acceptable=(yes_a, yes_b),
        preference=_one_of(text["preference"], PREFERENCES, "preference", at),
        evaluator=text["evaluator"],
        time=_seconds(row["timestamp"], at),
        prompt=text["prompt"],
        completions=(text["completion_a"], text["completion_b"]),
        quality=_one_of(quality, QUALITIES, "instance_quality", at) if quality else "",
        comment=text["comment"],
        instance_index=_whole(row.get("instance_index"), at),
        id=_whole(row.get("id"), at),
    )


def _text(value: Any) -> str:
    """A cell as text: spreadsheets make numbers of what looks like one."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _one_of(value: str, known: Sequence[str], what: str, at: str) -> str:
    if value not in known:
        raise DataError(f"unknown {what}", got=repr(value)[:60], at=at, expected=" or ".join(known))
    return value


def _whole(value: Any, at: str) -> int:
    try:
        return int(float(value or 0))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("id is no number", got=repr(value)[:60], at=at) from error


def _seconds(value: Any, at: str) -> float:
    """Seconds since 1970 of a cell's date, text as of `datetime.isoformat`, or number."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("timestamp is no time", got=repr(value)[:60], at=at,
                        expected="such as 2023-05-18 13:11:45")  from error  # fmt: skip


def row_of(one: Annotation) -> dict[str, Any]:
    """The annotation's row, by column."""
    yes_a, yes_b = (ACCEPTABLE[0 if yes else 1] for yes in one.acceptable)
    when = datetime.fromtimestamp(one.time, UTC).replace(tzinfo=None)
    values = (one.id, one.instance_index, one.instance_id, one.prompt, *one.models,
              *one.completions, yes_a, yes_b, one.preference, one.quality, one.comment,
              one.evaluator, when.isoformat(sep=" ", timespec="microseconds"))  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def write_rows(rows: Iterable[dict[str, Any]], name: str, stream: IO[bytes]) -> int:
    """Writes rows in one of `FORMATS`; how many cells xlsx had to cut."""
    rows = list(rows)
    heads: list[str] = list(rows[0] if rows else COLUMNS)
    if name == "xlsx":
        return _write_xlsx(rows, heads, stream)
    text = io.StringIO(newline="")
    if name == "jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, heads, lineterminator="\r\n")
        writer.writerow({head: head for head in heads})
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})
    stream.write(text.getvalue().encode("utf-8", "backslashreplace"))
    return 0


def _cell(value: Any) -> Any:
    return defuse(value) if isinstance(value, str) else value


def _write_xlsx(rows: list[dict[str, Any]], heads: list[str], stream: IO[bytes]) -> int:
    book = _openpyxl().Workbook(write_only=True)
    page = book.create_sheet("sheet")
    page.append(heads)
    cut = 0
    for row in rows:
        cells = []
        for value in row.values():
            value = _cell(value)
            if isinstance(value, str):
                value = _NOT_IN_XML.sub("\ufffd", value)
                if len(value) > CELL:
                    value, cut = value[: CELL - len(CUT)] + CUT, cut + 1
            cells.append(value)
        page.append(cells)
    book.save(stream)
    return cut
