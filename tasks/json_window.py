"""A large JSON file parsed piece by piece, so that memory does not grow with the file.

The library ijson (3.6, its backend in C) is as fast: 0.13 to 0.18 s for 49 MB of conversations,
0.18 to 0.22 s here, on one core in alternation. But its errors have no line, it cannot go on after
one bad record, and it takes the last of two equal keys in silence.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tulu_jax.errors import DataError
from tulu_jax.files import RepeatedField, each_once

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{}]', re.DOTALL)
_PIECE_BYTES = 1 << 20
_CUT_CHARS = 16
"""A parser's complaint this near the end of a piece may only mean that the piece ends there."""


@dataclass(frozen=True)
class FileOrigin:
    """Where a file is from: `advice` says what to do when it is broken.

    With `unique_keys` an object that has a key twice is a bad record.
    """

    advice: str
    decode: Callable[..., Any]
    raw_decode: Callable[..., Any]

    @staticmethod
    def of(advice: str, *, unique_keys: bool) -> FileOrigin:
        """The origin with the parser of its records."""
        decoder = json.JSONDecoder(object_pairs_hook=each_once if unique_keys else None)
        return FileOrigin(advice, decoder.decode, decoder.raw_decode)


DOWNLOADED = FileOrigin.of("download the file again", unique_keys=False)
OWN = FileOrigin.of("mend it there", unique_keys=True)


class BadRecord(DataError):
    """One record is bad; the file can be read on after it."""


class NotUtf8(BadRecord):
    """Bytes that are no UTF-8."""


class JsonWindow:
    """The piece of a large text file that is being parsed; it moves on and grows as needed."""

    def __init__(
        self,
        stream: BinaryIO,
        path: Path,
        origin: FileOrigin = DOWNLOADED,
        *,
        errors: Literal["strict", "replace"] = "strict",
    ) -> None:
        self.text = ""
        self.position = 0
        self._stream, self._path, self._origin = stream, path, origin
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors)
        self._line, self._counted = 1, 0
        self._more()
        if self.next_mark() == "":
            raise empty_file(path, origin)

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

        Raises: BadRecord for one that is nested too deeply, has an endless number in it, or, of a
            user's own, a key twice; DataError for malformed JSON.
        """
        while True:
            try:
                value, end = self._origin.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if not self.more_after(error):
                    raise self.malformed(error.pos, expected_json(error)) from error
            except (RecursionError, ValueError) as error:
                self._pass_over()
                raise unreadable(error, at) from error
            else:
                if end == len(self.text) and self._more():
                    continue
                self.position = end
                return value

    def more_after(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may only mean that the piece ends, and there is more of it now."""
        cut = error.pos > len(self.text) - _CUT_CHARS or "Unterminated" in error.msg
        return cut and self._more()

    def expect(self, mark: str, expected: str) -> None:
        """Moves the position after `mark`, which must come next.

        Raises: DataError when something else does.
        """
        if self.next_mark() != mark:
            raise self.malformed(self.position, expected)
        self.position += 1

    def more_items(self, closing: str, *, first: bool) -> bool:
        """Whether another item follows in a list or object, where the position then is.

        Otherwise the position is after `closing`. Between items there must be a comma.
        """
        mark = self.next_mark()
        if mark == closing:
            self.position += 1
            return False
        if not first:
            self.expect(",", f"a comma or {closing}")
            if self.next_mark() in (closing, ""):
                raise self.malformed(self.position, "a record after the comma")
        return True

    def finish(self, closing: str) -> None:
        """Passes when nothing is left but space.

        Raises: DataError otherwise.
        """
        if self.next_mark():
            raise self.malformed(self.position, f"nothing after the closing {closing}")

    def malformed(self, position: int, expected: str) -> DataError:
        """The error of JSON that is wrong at `position`."""
        self.position = position
        return DataError(
            "malformed or truncated JSON",
            got=excerpt(self.text, position),
            at=f"{self._path}, line {self.line()}",
            expected=expected,
            do=self._origin.advice,
        )

    def _more(self) -> bool:
        """Reads on, at least as much as is there already; whether there was anything."""
        raw = self._stream.read(max(_PIECE_BYTES, len(self.text) - self.position))
        line = self.line()
        try:
            new = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line += self.text.count("\n", self.position) + _lines(error)
            raise not_utf8(error, f"{self._path}, line {line}", DataError) from error
        if not raw:
            return False
        self.text = self.text[self.position :] + new
        self.position = self._counted = 0
        return True

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


def unreadable(error: Exception, at: str) -> BadRecord:
    """The error of a record that is JSON, but ambiguous or more than Python can hold."""
    if isinstance(error, RepeatedField):
        return repeated_key(str(error), at)
    deep = isinstance(error, RecursionError)
    what = "record is nested too deeply" if deep else "record has a number of too many digits"
    return BadRecord(what, at=at)


def repeated_key(name: str, at: str) -> BadRecord:
    """The error of an object that has a key twice."""
    return BadRecord(
        "object has a key twice", got=ascii(name)[:60], at=at, expected="each key once"
    )


def empty_file(path: Path, origin: FileOrigin = DOWNLOADED) -> DataError:
    """The error of a file with nothing but space in it."""
    again = "fill it or leave it out" if origin is OWN else origin.advice
    return DataError("raw file is empty", at=path, do=again)


def not_utf8(error: UnicodeDecodeError, at: str, kind: type[DataError] = NotUtf8) -> DataError:
    """The error, of the given kind, of bytes that are no UTF-8; it shows the first of them."""
    return kind(
        "file is not UTF-8",
        got=f"byte 0x{error.object[error.start]:02x}",
        at=at,
        expected="UTF-8 text",
        do="convert it, for example with iconv -t UTF-8",
    )


def expected_json(error: json.JSONDecodeError) -> str:
    """What would have been right: what the parser expected, or, for other faults, whole JSON."""
    what = error.msg.removeprefix("Expecting ")
    return (
        what
        if what != error.msg
        else f"whole JSON ({error.msg.removesuffix(' at').removesuffix(' starting').lower()})"
    )


def excerpt(text: str, position: int) -> str:
    """The text around `position`, quoted; `end of file` when nothing is there."""
    if position >= len(text):
        return "end of file"
    start = max(0, position - 20)
    return repr(text[start : start + 60])


def _lines(error: UnicodeDecodeError) -> int:
    return error.object.count(b"\n", 0, error.start)
