"""Reading raw JSON and JSONL files so that every fault names its file and line.

The readers go through a file piece by piece, so that memory does not grow with its size. A bad
record goes to `faults` and reading goes on after it; without `faults`, the first one is raised.
"""

from __future__ import annotations

import codecs
import json
import random
import reprlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tasks.json_window import (
    DOWNLOADED,
    BadRecord,
    FileOrigin,
    JsonWindow,
    NotUtf8,
    empty_file,
    excerpt,
    expected_json,
    not_utf8,
    unreadable,
)
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError

Record = tuple[str, dict[str, Any]]
"""Where a record is (`file, line n`), and what it holds."""

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 60, 60


def read_json_list(path: str | Path, faults: Faults | None = None) -> Iterator[Record]:
    """The objects of a file that is one JSON list, each with its place (`file, line n`).

    An element of another type, or one nested too deeply, goes to `faults`.

    Raises: DataError when the file is missing, empty, not UTF-8, malformed, cut off, or not a
        list: after malformed JSON there is no telling where the next record starts.
    """
    with open_file(Path(path)) as stream:
        yield from json_list_records(stream, Path(path), faults)


def json_list_records(
    stream: BinaryIO, path: Path, faults: Faults | None, origin: FileOrigin = DOWNLOADED
) -> Iterator[Record]:
    """`read_json_list` of what `stream` gives; `path` is what places name."""
    window = JsonWindow(stream, path, origin)
    window.expect("[", "a JSON list, starting with [")
    yield from elements(window, path, faults)
    window.finish("]")


def read_json_object(
    path: str | Path, *, listed: str, faults: Faults | None = None
) -> dict[str, Any]:
    """The fields of a file that is one JSON object; records are in its field `listed`.

    That field's value is a list of records with their places. A record that is no object, or is
    nested too deeply, goes to `faults`.

    Raises: DataError when the file is missing, empty, not UTF-8, malformed or cut off, and when
        `listed` is missing or is not a list.
    """
    path, fields = Path(path), {}
    with open_file(path) as stream:
        window = JsonWindow(stream, path)
        window.expect("{", "a JSON object, starting with {")
        while window.more_items("}", first=not fields):
            at = f"{path}, line {window.line()}"
            name = window.value(at) if window.next_mark() == '"' else None
            if name is None:
                raise window.malformed(window.position, "a field's name in quotes")
            window.expect(":", "a colon")
            if name == listed and window.next_mark() == "[":
                window.position += 1
                fields[name] = list(elements(window, path, faults))
            else:
                window.next_mark()
                fields[name] = window.value(at)
        window.finish("}")
    list_field(fields, listed, at=str(path))
    return fields


def read_jsonl(path: str | Path, faults: Faults | None = None) -> Iterator[Record]:
    """The objects of a JSONL file, each with its place (`file, line n`). Blank lines are skipped.

    A line that is not one whole JSON object in UTF-8 goes to `faults`.

    Raises: DataError when the file is missing, empty, or has no line in UTF-8.
    """
    with open_file(Path(path)) as stream:
        yield from jsonl_records(stream, Path(path), faults)


def jsonl_records(
    stream: BinaryIO, path: Path, faults: Faults | None, origin: FileOrigin = DOWNLOADED
) -> Iterator[Record]:
    """`read_jsonl` of what `stream` gives; `path` is what places name."""
    faults = strict_if_none(faults)
    first_error: DataError | None = None
    decoded = False
    for number, raw in enumerate(stream, start=1):
        if not raw.strip() or (number == 1 and not raw.removeprefix(codecs.BOM_UTF8).strip()):
            continue
        at = f"{path}, line {number}"
        try:
            record = _parse_line(raw, at, origin, first=number == 1)
        except BadRecord as error:
            first_error = first_error or error
            decoded = decoded or not isinstance(error, NotUtf8)
            faults.saw()
            faults.skip(error)
        else:
            decoded = True
            yield at, record
    if not decoded:
        raise first_error or empty_file(path, origin)


def sample_jsonl(
    path: str | Path, count: int | None, *, rng: random.Random, faults: Faults | None = None
) -> Iterator[Record]:
    """`count` lines of a JSONL file in the order in which `rng.sample` draws them.

    With no `count`, or no more lines than that, all of them in file order and nothing is drawn.
    The file is read twice and only the places of its lines are kept. Of faults, only those of
    lines drawn are met.

    Raises: DataError as `read_jsonl`.
    """
    path = Path(path)
    numbers, offsets = _line_places(path) if count is not None else ([], [])
    if count is None or len(offsets) <= count:
        yield from read_jsonl(path, faults)
        return
    faults = strict_if_none(faults)
    with open_file(path) as stream:
        for index in rng.sample(range(len(offsets)), count):
            stream.seek(offsets[index])
            at = f"{path}, line {numbers[index]}"
            try:
                line = stream.readline()
                record = _parse_line(line, at, DOWNLOADED, first=numbers[index] == 1)
            except BadRecord as error:
                faults.saw()
                faults.skip(error)
            else:
                yield at, record


def text_field(record: dict[str, Any], name: str, *, at: str, optional: bool = False) -> str:
    """The text in field `name`; "" for a missing or null one when `optional`.

    Raises: DataError when the field is missing or is not text.
    """
    if optional and record.get(name) is None:
        return ""
    return as_text(_field(record, name, at), f"field {name!r}", at=at)


def list_field(record: dict[str, Any], name: str, *, at: str) -> list[Any]:
    """The list in field `name`.

    Raises: DataError when the field is missing or is not a list.
    """
    value = _field(record, name, at)
    if not isinstance(value, list):
        raise _wrong_type(f"field {name!r}", value, at, "a list")
    return value


def as_text(value: Any, what: str, *, at: str) -> str:
    """`value`, which must be text; `what` says what it is, for the message.

    Raises: DataError for any other type.
    """
    if not isinstance(value, str):
        raise _wrong_type(what, value, at, "text")
    return value


def as_object(value: Any, what: str, *, at: str) -> dict[str, Any]:
    """`value`, which must be a JSON object; `what` says what it is, for the message.

    Raises: DataError for any other type.
    """
    if not isinstance(value, dict):
        raise _wrong_type(what, value, at, "a JSON object")
    return value


def elements(
    window: JsonWindow, path: Path, faults: Faults | None, *, first: bool = True
) -> Iterator[Record]:
    """The objects of the list that the window has just entered, or, when it is not at the `first`
    item, is in; it then is after the list.
    """
    faults = strict_if_none(faults)
    while window.more_items("]", first=first):
        first = False
        at = f"{path}, line {window.line()}"
        try:
            record = as_object(window.value(at), "record", at=at)
        except BadRecord as error:
            faults.saw()
            faults.skip(error)
        else:
            yield at, record


def _parse_line(raw: bytes, at: str, origin: FileOrigin, *, first: bool) -> dict[str, Any]:
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, at) from error
    if first:
        line = line.removeprefix("\ufeff")
    try:
        value = origin.decode(line)
    except json.JSONDecodeError as error:
        raise BadRecord(
            "malformed or truncated JSON",
            got=excerpt(line, error.pos),
            at=f"{at}, column {error.colno}",
            expected=expected_json(error),
            do=origin.advice,
        ) from error
    except (RecursionError, ValueError) as error:
        raise unreadable(error, at) from error
    return as_object(value, "record", at=at)


def _line_places(path: Path) -> tuple[Sequence[int], Sequence[int]]:
    """The number and the offset of each line that is not blank."""
    numbers, offsets, offset = array("Q"), array("Q"), 0
    with open_file(path) as stream:
        for number, raw in enumerate(stream, start=1):
            if raw.strip():
                numbers.append(number)
                offsets.append(offset)
            offset += len(raw)
    return numbers, offsets


def strict_if_none(faults: Faults | None) -> Faults:
    """The faults, or, when there are none, such as raise the first one."""
    return Faults(strict=True) if faults is None else faults


def _field(record: dict[str, Any], name: str, at: str) -> Any:
    if name not in record:
        names = [key[:40].encode(errors="backslashreplace").decode() for key in record]
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise BadRecord(f"missing field {name!r}", got=f"fields {shown or 'none'}", at=at)
    return record[name]


def _wrong_type(what: str, value: Any, at: str, expected: str) -> BadRecord:
    got = f"{type(value).__name__} {_BRIEF.repr(value)}"
    return BadRecord(f"{what} has the wrong type", got=got, at=at, expected=expected)


def open_file(path: Path) -> BinaryIO:
    """The file, open for reading bytes.

    Raises: DataError when it cannot be opened.
    """
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        got = error.strerror if isinstance(error, OSError) else error
        raise DataError("cannot read raw file", got=got, at=path) from error
