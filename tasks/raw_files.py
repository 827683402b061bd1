"""Reading raw JSON and JSONL files so that every fault names its file and line.

Both readers go through a file piece by piece, so that memory does not grow with its size. A bad
record goes to `faults` and reading goes on after it; without `faults`, the first one is raised.
"""

from __future__ import annotations

import codecs
import json
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_BOM = "\ufeff"
_PIECE_CHARS = 1 << 20
_CUT_CHARS = 16
"""A parser's complaint this near the end of a piece may only mean that the piece ends there."""

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 60, 60


class BadRecord(DataError):
    """One record is bad; the file can be read on after it."""


def read_json_list(
    path: str | Path, faults: Faults | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that is one JSON list, each with its place (`file, line n`).

    An element of another type, or one nested too deeply, goes to `faults`.

    Raises: DataError when the file is missing, empty, not UTF-8, malformed, cut off, or not a
        list: after malformed JSON there is no telling where the next record starts.
    """
    path, faults = Path(path), _faults(faults)
    with _open(path) as stream:
        window = _Window(stream, path)
        if window.next_mark() != "[":
            raise window.malformed(window.position, "a JSON list, starting with [")
        window.position += 1
        mark = window.next_mark()
        while mark != "]":
            at = f"{path}, line {window.line()}"
            try:
                record = as_object(window.value(at), "record", at=at)
            except BadRecord as error:
                faults.saw()
                faults.skip(error)
            else:
                yield at, record
            mark = _after_element(window)
        window.position += 1
        if window.next_mark():
            raise window.malformed(window.position, "nothing after the closing ]")


def read_jsonl(
    path: str | Path, faults: Faults | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with its place (`file, line n`). Blank lines are skipped.

    A line that is not one whole JSON object in UTF-8 goes to `faults`.

    Raises: DataError when the file is missing, empty, or has no line in UTF-8.
    """
    path, faults = Path(path), _faults(faults)
    undecodable: DataError | None = None
    any_decoded = any_line = False
    with _open(path) as stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.strip():
                continue
            any_line = True
            at = f"{path}, line {number}"
            try:
                line = _decode(raw, at)
                any_decoded = True
                record = _parse_line(line.removeprefix(_BOM) if number == 1 else line, at)
            except BadRecord as error:
                undecodable = undecodable or error
                faults.saw()
                faults.skip(error)
            else:
                yield at, record
    if not any_line:
        raise _empty(path)
    if not any_decoded and undecodable is not None:
        raise undecodable


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


class _Window:
    """The piece of a large text file that is being parsed; it moves on and grows as needed."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.text = ""
        self.position = 0
        self._stream, self._path = stream, path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._line, self._counted = 1, 0
        self._more()
        self.text = self.text.removeprefix(_BOM)
        if self.next_mark() == "":
            raise _empty(path)

    def line(self) -> int:
        """The line of the current position, from 1."""
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def next_mark(self) -> str:
        """The next character that is not space, where the position now is; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._more():
                return ""

    def value(self, at: str) -> Any:
        """The JSON value at the position, which is then after it.

        Raises: BadRecord for one that is nested too deeply or has an endless number in it;
            DataError for malformed JSON.
        """
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self.text) - _CUT_CHARS or "Unterminated" in error.msg
                if not (cut and self._more()):
                    raise self.malformed(error.pos, _expected(error)) from error
            except (RecursionError, ValueError) as error:
                self._pass_over()
                raise _unreadable(error, at) from error
            else:
                if end == len(self.text) and self._more():
                    continue
                self.position = end
                return value

    def malformed(self, position: int, expected: str) -> DataError:
        """The error of JSON that is wrong at `position`."""
        self.position = position
        return DataError(
            "malformed or truncated JSON",
            got=_excerpt(self.text, position),
            at=f"{self._path}, line {self.line()}",
            expected=expected,
            do="download the file again",
        )

    def _more(self) -> bool:
        """Reads on, at least as much as is there already; whether there was anything."""
        raw = self._stream.read(max(_PIECE_CHARS, len(self.text) - self.position))
        line = self.line()
        try:
            new = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line += self.text.count("\n", self.position) + _lines(error)
            raise _not_utf8(error, f"{self._path}, line {line}") from error
        self.text = self.text[self.position :] + new
        self.position = self._counted = 0
        return bool(raw)

    def _pass_over(self) -> None:
        """Moves the position after the list or object there, by its brackets alone."""
        if self.text[self.position] not in "[{":
            raise self.malformed(self.position, "a JSON object")
        while (end := _closing(self.text, self.position)) is None:
            if not self._more():
                raise self.malformed(len(self.text), "the record's closing bracket")
        self.position = end


def _closing(text: str, start: int) -> int | None:
    """Where the value that opens at `start` is closed; None when the text ends before."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text, start):
        mark = match.group() if match.end() - match.start() == 1 else ""
        if mark == '"':
            return None
        depth += (mark in "[{") - (mark in "]}") if mark else 0
        if depth == 0:
            return match.end()
    return None


def _after_element(window: _Window) -> str:
    """The mark that ends the list, or the first one of its next element."""
    mark = window.next_mark()
    if mark == "]":
        return mark
    if mark != ",":
        raise window.malformed(window.position, "a comma or ]")
    window.position += 1
    mark = window.next_mark()
    if mark in ("]", ""):
        raise window.malformed(window.position, "a record after the comma")
    return mark


def _parse_line(line: str, at: str) -> dict[str, Any]:
    try:
        return as_object(json.loads(line), "record", at=at)
    except json.JSONDecodeError as error:
        raise BadRecord(
            "malformed or truncated JSON",
            got=_excerpt(line, error.pos),
            at=f"{at}, column {error.colno}",
            expected=_expected(error),
            do="download the file again",
        ) from error
    except (RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(error, at) from error


def _unreadable(error: Exception, at: str) -> BadRecord:
    deep = isinstance(error, RecursionError)
    what = "record is nested too deeply" if deep else "record has a number of too many digits"
    return BadRecord(what, at=at)


def _faults(faults: Faults | None) -> Faults:
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


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError("cannot read raw file", got=error.strerror, at=path) from error


def _empty(path: Path) -> DataError:
    return DataError("raw file is empty", at=path, do="download the file again")


def _decode(content: bytes, at: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, at) from error


def _lines(error: UnicodeDecodeError) -> int:
    return error.object.count(b"\n", 0, error.start)


def _not_utf8(error: UnicodeDecodeError, at: str) -> BadRecord:
    return BadRecord(
        "file is not UTF-8",
        got=f"byte 0x{error.object[error.start]:02x}",
        at=at,
        expected="UTF-8 text",
        do="convert it, for example with iconv -t UTF-8",
    )


def _expected(error: json.JSONDecodeError) -> str:
    """What would have been right: what the parser expected, or, for other faults, whole JSON."""
    what = error.msg.removeprefix("Expecting ")
    return (
        what
        if what != error.msg
        else f"whole JSON ({error.msg.removesuffix(' at').removesuffix(' starting').lower()})"
    )


def _excerpt(text: str, position: int) -> str:
    """The text around `position`, quoted; `end of file` when nothing is there."""
    if position >= len(text):
        return "end of file"
    start = max(0, position - 20)
    return repr(text[start : start + 60])
