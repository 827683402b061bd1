"""Rows of CSV, TSV and Parquet files as records; lists in their cells may be written as JSON."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tasks.json_window import OWN, BadRecord, empty_file, not_utf8, repeated_key
from tasks.own.fields import FLAGS
from tasks.own.shapes import LISTS
from tasks.parquet import arrow_errors, batch_rows
from tasks.raw_files import Record, strict_if_none
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError
from tulu_jax.files import RepeatedField

_BATCH = 256
_SAID = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True, "": None}
_LONGEST_CELL = min(sys.maxsize, (1 << 31) - 1)


def csv_records(
    stream: BinaryIO, path: Path, faults: Faults | None, *, tabs: bool
) -> Iterator[Record]:
    """The rows under the names in the first one, each with its place (`file, line n`).

    Cells are parted by commas, by semicolons or tabs where the first row has these alone, or by
    `tabs`.

    Raises: DataError for a file that is empty, is not UTF-8, has names twice or a quote that does
        not end.
    """
    faults = strict_if_none(faults)
    csv.field_size_limit(_LONGEST_CELL)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        yield from _table(_Rows(text, path, tabs=tabs), path, faults)
    finally:
        text.detach()  # closing the stream is its opener's


def _table(rows: _Rows, path: Path, faults: Faults) -> Iterator[Record]:
    names = rows.next()
    if names is None:
        raise empty_file(path, OWN)
    names = [name.strip() for name in names]
    _check_names(names, path)
    while True:
        try:
            row = rows.next()
            if row is None:
                return
            if not row:
                continue
            at = f"{path}, line {rows.line}"
            if len(row) != len(names):
                raise BadRecord(
                    "row has another number of cells than the first",
                    got=f"{len(row)}",
                    at=at,
                    expected=f"{len(names)}",
                    do="put cells with commas or line ends in double quotes",
                )
            record = with_lists(_typed(dict(zip(names, row, strict=True))), at)
        except BadRecord as error:
            faults.saw()
            faults.skip(error)
        else:
            yield at, record


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """The row, all text, with its flags as what they say; other words stay, and are refused.

    >>> _typed({"prompt": "0", "weight": "0", "train": "True", "loss": ""})
    {'prompt': '0', 'weight': False, 'train': True, 'loss': None}
    """
    for name in row.keys() & set(FLAGS):
        row[name] = _SAID.get(row[name].strip().lower(), row[name])
    return row


class _Rows:
    """A table's rows; `line` is where the last one began."""

    def __init__(self, text: io.TextIOWrapper, path: Path, *, tabs: bool) -> None:
        self._path, self._passed, self.line = path, 0, 1
        first = self._decoded(text.readline)
        only = [mark for mark in ";\t" if mark in first and "," not in first]
        mark = "\t" if tabs else only[0] if len(only) == 1 else ","
        self._lines = _Lines(first, text)
        self._reader = csv.reader(self._lines, delimiter=mark, strict=True)

    def next(self) -> list[str] | None:
        """The next row; None at the end.

        Raises: BadRecord for a bad row; DataError for a quote that does not end.
        """
        self.line = self._reader.line_num + 1
        try:
            return self._decoded(lambda: next(self._reader, None))
        except csv.Error as error:
            at = f"{self._path}, line {self.line}"
            what = "cell with quotes is not closed or goes on after them"
            kind = DataError if "end of data" in str(error) else BadRecord
            do = 'write a double quote within a cell as two: ""'
            raise kind(what, got=str(error), at=at, do=do) from error

    def _decoded(self, read: Any) -> Any:
        try:
            return read()
        except UnicodeDecodeError as error:
            raise not_utf8(error, f"{self._path}, after line {self.line}", DataError) from error


class _Lines:
    """The first line, then those of the rest."""

    def __init__(self, first: str, text: io.TextIOWrapper) -> None:
        self._first, self._text = first, text

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._first:
            line, self._first = self._first, ""
            return line
        return next(self._text)


def _check_names(names: list[str], path: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            "table has a column twice",
            got=ascii(twice[0])[:60],
            at=f"{path}, line 1",
            expected="names of columns in the first line, each once",
        )


def parquet_records(path: Path, faults: Faults | None) -> Iterator[Record]:
    """The file's rows, each with its place (`file, row n` from 1); read batch by batch.

    Raises: DataError for a file that is damaged.
    """
    from pyarrow.parquet import ParquetFile

    faults = strict_if_none(faults)
    number = 0
    try:
        with ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(_BATCH):
                for row in batch_rows(batch):
                    number += 1
                    at = f"{path}, row {number}"
                    try:
                        if row is None:
                            raise BadRecord("text is not UTF-8", at=at)
                        record = with_lists(row, at)
                    except BadRecord as error:
                        faults.saw()
                        faults.skip(error)
                    else:
                        yield at, record
    except arrow_errors() as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            "Parquet file cannot be read",
            got=str(error).partition("\n")[0][:200],
            at=path,
            do="write or copy it again",
        ) from error


def with_lists(row: dict[str, Any], at: str) -> dict[str, Any]:
    """The row with those of its fields that are lists read from JSON where they are text.

    >>> with_lists({"messages": '[{"role": "user", "content": "Hi"}]', "id": "[1]"}, "")
    {'messages': [{'role': 'user', 'content': 'Hi'}], 'id': '[1]'}

    Raises: BadRecord for text that looks like a list and is no JSON.
    """
    for name in LISTS.intersection(row):
        value = row[name]
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                row[name] = OWN.decode(value)
            except RepeatedField as error:
                raise repeated_key(str(error), at) from error
            except (ValueError, RecursionError) as error:
                raise BadRecord(
                    f"column {name!r} is no JSON list",
                    got=ascii(value)[:60],
                    at=at,
                    expected="a list as JSON, with double quotes",
                ) from error
    return row
