"""Reading raw JSON and JSONL files so that every fault names its file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tulu_jax.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_BOM = "\ufeff"


def read_json_list(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that is one JSON list, each with its place (`file, line n`).

    Raises: DataError when the file is missing, empty, not UTF-8, malformed, cut off, or when it
        is not a list of objects.
    """
    path = Path(path)
    text = _decode(_read_bytes(path), path, 1).removeprefix(_BOM)
    decoder = json.JSONDecoder()
    position = _after_space(text, 0)
    if text[position : position + 1] != "[":
        raise _malformed(path, text, position, "a JSON list, starting with [")
    position = _after_space(text, position + 1)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise _malformed(path, text, error.pos, _expected(error)) from error
        yield f"{path}, line {line}", _object(value, f"{path}, line {line}")
        position = _next_element(path, text, position)
    rest = _after_space(text, position + 1)
    if rest != len(text):
        raise _malformed(path, text, rest, "nothing after the closing ]")


def read_jsonl(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with its place (`file, line n`). Blank lines are skipped.

    Raises: DataError when the file is missing, empty, not UTF-8, or when a line is not one whole
        JSON object.
    """
    path = Path(path)
    for number, raw in enumerate(_read_bytes(path).split(b"\n"), start=1):
        if not raw.strip():
            continue
        at = f"{path}, line {number}"
        line = _decode(raw, path, number)
        try:
            value = json.loads(line.removeprefix(_BOM) if number == 1 else line)
        except json.JSONDecodeError as error:
            raise DataError(
                "malformed or truncated JSON",
                got=repr(_excerpt(line, error.pos)),
                at=f"{at}, column {error.colno}",
                expected=_expected(error),
                do="download the file again",
            ) from error
        yield at, _object(value, at)


def text_field(record: dict[str, Any], name: str, *, at: str, optional: bool = False) -> str:
    """The text in field `name`; "" for a missing or null one when `optional`.

    Raises: DataError when the field is missing or is not text.
    """
    value = record.get(name)
    if value is None and optional:
        return ""
    if name not in record:
        raise DataError(
            f"missing field {name!r}", got=f"fields {', '.join(record) or 'none'}", at=at
        )
    if not isinstance(value, str):
        raise DataError(
            f"field {name!r} has the wrong type",
            got=f"{type(value).__name__} {_excerpt(repr(value), 0)}",
            at=at,
            expected="text",
        )
    return value


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError("cannot read raw file", got=error.strerror, at=path) from error
    if not content.strip():
        raise DataError("raw file is empty", at=path, do="download the file again")
    return content


def _decode(content: bytes, path: Path, first_line: int) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + content.count(b"\n", 0, error.start)
        raise DataError(
            "file is not UTF-8",
            got=f"byte 0x{content[error.start]:02x}",
            at=f"{path}, line {line}",
            expected="UTF-8 text",
            do="convert it, for example with iconv -t UTF-8",
        ) from error


def _object(value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        got = f"{type(value).__name__} {_excerpt(repr(value), 0)}"
        raise DataError("record has the wrong type", got=got, at=at, expected="a JSON object")
    return value


def _next_element(path: Path, text: str, position: int) -> int:
    position = _after_space(text, position)
    mark = text[position : position + 1]
    if mark == "]":
        return position
    if mark != ",":
        raise _malformed(path, text, position, "a comma or ]")
    after = _after_space(text, position + 1)
    if text[after : after + 1] == "]":
        raise _malformed(path, text, after, "a record after the comma")
    return after


def _expected(error: json.JSONDecodeError) -> str:
    """What would have been right: what the parser expected, or, for other faults, whole JSON."""
    what = error.msg.removeprefix("Expecting ")
    return (
        what
        if what != error.msg
        else f"whole JSON ({error.msg.removesuffix(' at').removesuffix(' starting').lower()})"
    )


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _excerpt(text: str, position: int) -> str:
    start = max(0, position - 20)
    return text[start : start + 60] or "end of file"


def _malformed(path: Path, text: str, position: int, expected: str) -> DataError:
    line = text.count("\n", 0, position) + 1
    return DataError(
        "malformed or truncated JSON",
        got=repr(_excerpt(text, position)) if position < len(text) else "end of file",
        at=f"{path}, line {line}",
        expected=expected,
        do="download the file again",
    )
