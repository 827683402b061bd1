"""Readers of benchmark files, with an error for every way a download goes wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tulu_jax.errors import DataError
from tulu_jax.files import kind_of, parse_json, whole_file

DOWNLOAD = "download it again: tulu data download --eval"


class Origin(NamedTuple):
    """What messages call a file, and what to do where it is damaged."""

    what: str
    do: str


OFFICIAL = Origin("benchmark file", DOWNLOAD)
OWN = Origin("file", "take it anew from where it came, or name another")
RESULT = Origin(
    "file of results", "run `tulu eval` again with the same --save_dir: it asks nothing twice"
)
GZIP = b"\x1f\x8b"
POINTER = b"version https://git-lfs"


def read_text(path: Path, origin: Origin = OFFICIAL) -> str:
    """The text of a file in UTF-8, unpacked if it is gzip.

    Raises:
      DataError: it is missing, empty, truncated, a web page, a Git LFS pointer or no UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{origin.what} is missing", at=path, do=origin.do) from None
    except OSError as error:
        raise DataError(
            f"{origin.what} cannot be read", got=error.strerror or error, at=path
        ) from error
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{origin.what} is truncated or damaged", got=error, at=path, do=origin.do
            ) from error
    return _as_text(data, path, origin)


def _as_text(data: bytes, path: Path, origin: Origin) -> str:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError(f"{origin.what} is empty", at=path, do=origin.do)
    if data.startswith(POINTER):
        raise DataError(
            f"{origin.what} is a Git LFS pointer, not the file", at=path, do="git lfs pull"
        )
    if data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{origin.what} is a web page", got="HTML", at=path, do=origin.do)
    if (kind := kind_of(data)) is not None:
        raise DataError(f"{origin.what} is not text", got=kind, at=path, do=origin.do)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{origin.what} is not UTF-8", got=f"byte {data[error.start]:#04x} at {error.start}",
            at=path, do=origin.do,
        ) from error  # fmt: skip


def read_json(path: Path, origin: Origin = OFFICIAL) -> Any:
    """The value of a JSON file.

    Raises:
      DataError: see `read_text`; it is no JSON, as when its end is missing.
    """
    text = read_text(path, origin)
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(
            f"{origin.what} is no JSON", got=error, at=path, expected="one JSON value", do=origin.do
        ) from error


def read_jsonl(path: Path, *fields: str, origin: Origin = OFFICIAL) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, each with at least these fields; blank lines are none.

    Raises:
      DataError: see `read_text`; a line is no JSON object or lacks a field.
    """
    rows = []
    for number, line in enumerate(read_text(path, origin).split("\n"), 1):
        if not line.strip():
            continue
        at = f"{path} line {number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError("line is no JSON", got=error, at=at, do=origin.do) from error
        check_fields(row, fields, at, origin.do)
        rows.append(row)
    return rows


def check_fields(row: Any, fields: Sequence[str], at: object, do: str = DOWNLOAD) -> None:
    """Passes for an object that has all of the fields.

    Raises:
      DataError: it is none, or lacks one.
    """
    lacking = [name for name in fields if not isinstance(row, dict) or name not in row]
    if lacking or not isinstance(row, dict):
        raise DataError(
            "object lacks a field" if isinstance(row, dict) else "line is no JSON object",
            got=sorted(row)[:8] if isinstance(row, dict) else json.dumps(row)[:60],
            at=at,
            expected=", ".join(fields),
            do=do,
        )


def check_texts(row: Any, fields: Sequence[str], at: object) -> None:
    """Passes for an object whose fields are texts.

    Raises:
      DataError: see `check_fields`; one is something else.
    """
    check_fields(row, fields, at)
    for name in fields:
        if not isinstance(row[name], str):
            raise DataError(
                "field is no text", got=f"{name}: {json.dumps(row[name])[:60]}", at=at,
                do=DOWNLOAD,
            )  # fmt: skip


def list_in(row: Any, field: str, at: object) -> list[Any]:
    """The list in a field of an object.

    Raises:
      DataError: see `check_fields`; the field is something else.
    """
    check_fields(row, (field,), at)
    if not isinstance(row[field], list):
        raise DataError(
            "field is no list", got=f"{field}: {json.dumps(row[field])[:60]}", at=at, do=DOWNLOAD
        )
    return row[field]


def read_csv(path: Path, *, columns: int | None, origin: Origin = OFFICIAL) -> list[list[str]]:
    """The rows of a CSV file, every field as text; blank lines are none.

    Each has so many columns; with None, as many as the first.

    Raises:
      DataError: see `read_text`; a row has another number of columns, or a quote is not closed.
    """
    rows = []
    reader = csv.reader(io.StringIO(read_text(path, origin), newline=""), strict=True)
    try:
        for row in reader:
            if not row:
                continue
            columns = columns or len(row)
            if len(row) != columns:
                raise DataError(
                    "row has another number of columns", got=len(row),
                    at=f"{path} line {reader.line_num}", expected=columns, do=origin.do,
                )  # fmt: skip
            rows.append(row)
    except csv.Error as error:
        raise DataError(
            f"{origin.what} is no CSV", got=error, at=f"{path} line {reader.line_num}", do=origin.do
        ) from error
    return rows


def write_jsonl(path: Path, rows: Sequence[Any]) -> None:
    """Writes JSON lines, whole or not at all; a lone surrogate as JSON spells it."""
    with whole_file(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def take(items: Sequence[Any], count: int | None, rng: random.Random) -> list[Any]:
    """`count` of the items as `random.sample` draws them; all, in order, where there are fewer."""
    if count is None or count >= len(items):
        return list(items)
    return rng.sample(list(items), count)
