"""What a user's file is, whatever it is called, and its records with their places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.json_window import DOWNLOADED, OWN, BadRecord, JsonWindow, excerpt, repeated_key
from tasks.own.shapes import LISTS, is_turn, shape_of
from tasks.own.streams import PARQUET, kind_of_own, open_text
from tasks.own.tables import csv_records, parquet_records
from tasks.raw_files import (
    Record,
    elements,
    json_list_records,
    jsonl_records,
    strict_if_none,
)
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError
from tulu_jax.files import hub_advice, lost_link

LINES, JSON, TABLES = (".jsonl", ".ndjson", ".jsonlines"), (".json",), (".csv", ".tsv")
PACKED = (".gz", ".zst", ".zstd")
SUFFIXES = (*LINES, *JSON, *TABLES, ".parquet")
EXPECTED = ".jsonl, .json, .csv, .tsv (each also with .gz or .zst) or .parquet"

NO_RECORDS = ("dataset_info.json", "dataset_infos.json", "state.json", "checksums.json")
"""Files that tools put beside records, of a folder left out."""

LONGEST_LOOK = 1 << 20
"""So many characters of a first value are looked at to find out what the file is."""

Layout = Literal["lines", "list", "object", "table", "parquet"]

LAYOUTS: dict[Layout, str] = {
    "lines": "one record a line",
    "list": "a JSON list of records",
    "object": "records in a JSON object",
    "table": "a table",
    "parquet": "a Parquet file",
}


@dataclass(frozen=True)
class OwnFile:
    """A user's file and how its records lie in it."""

    path: Path
    layout: Layout

    def records(self, faults: Faults | None = None) -> Iterator[Record]:
        """The records with their places; a bad one goes to `faults` (None: is raised).

        Raises: DataError for a file that cannot be read on.
        """
        if self.layout == "parquet":
            yield from parquet_records(self.path, faults)
            return
        with open_text(self.path) as stream:
            if self.layout == "table":
                tabs = plain_name(self.path).endswith(".tsv")
                yield from csv_records(stream, self.path, faults, tabs=tabs)
            elif self.layout == "lines":
                yield from jsonl_records(stream, self.path, faults, OWN)
            elif self.layout == "list":
                yield from json_list_records(stream, self.path, faults, OWN)
            else:
                yield from _object_records(JsonWindow(stream, self.path, OWN), self.path, faults)

    @property
    def unexpected(self) -> bool:
        """Whether the file's name says that its records lie otherwise than they do."""
        name = plain_name(self.path)
        named = {**dict.fromkeys(LINES, "lines"), **dict.fromkeys(TABLES, "table")}
        suffix = Path(name).suffix
        if suffix == ".json":
            return self.layout not in ("list", "object")
        return named.get(suffix, self.layout if suffix != ".parquet" else "parquet") != self.layout


def plain_name(path: Path) -> str:
    """The file's name in small letters without the suffix of a packed one.

    >>> plain_name(Path("Chats.JSONL.gz"))
    'chats.jsonl'
    """
    name = path.name.lower()
    return next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name)


def own_file(path: Path) -> OwnFile:
    """The file, its layout found out from what is in it.

    Raises: DataError for a file that holds no records that can be read.
    """
    if kind_of_own(path) == PARQUET:
        return OwnFile(path, "parquet")
    name = plain_name(path)
    with open_text(path) as stream:
        window = JsonWindow(stream, path, OWN, errors="replace")  # faults are told when it is read
        mark = window.next_mark()
        lines = name.endswith(LINES)
        if name.endswith(TABLES) and mark not in ("{", "["):
            return OwnFile(path, "table")
        if name.endswith(JSON) and mark not in ("{", "["):
            raise DataError(
                "file is not JSON",
                got=excerpt(window.text, window.position),
                at=f"{path}, line {window.line()}",
                expected="[ or { first",
                do="mend it there; a table is called .csv or .tsv",
            )
        if mark not in ("{", "[") and not (lines or name.endswith(JSON)):
            raise DataError(
                "file of conversations has another format",
                got=path.name,
                at=path.parent,
                expected=EXPECTED,
                do="convert it; a table is called .csv or .tsv",
            )
        lines = lines or name.endswith((".parquet", *TABLES))
        return OwnFile(path, _layout(window, path, mark, lines=lines))


def _layout(window: JsonWindow, path: Path, mark: str, *, lines: bool) -> Layout:
    """How JSON records lie in a file whose first character is `mark`; `lines`: if in doubt, so."""
    usual: Layout = "lines" if lines else "list" if mark == "[" else "object"
    if mark not in ("{", "[") or usual == "list":
        return usual
    first = window.line()
    try:
        value = _first_value(window)
    except (ValueError, RecursionError):
        return _layout_of_broken(window, usual, mark)
    last = window.line()
    more = window.next_mark()
    if not more:
        return _layout_of_one(value, usual, spread=last > first)
    if first == last and window.line() > last:
        return "lines"
    if mark == "{" and more == "{" and last > first:
        raise DataError(
            "a record is spread over several lines",
            got=f"one from line {first} to {last}",
            at=path,
            expected="one record a line, or one JSON list of them",
            do="write each into one line (jq -c . OLD > NEW)",
        )
    return usual


def _first_value(window: JsonWindow) -> Any:
    """The JSON value at the window's position, which is then after it.

    Raises: ValueError, RecursionError for one that cannot be parsed, or is very long.
    """
    while True:
        try:
            value, window.position = DOWNLOADED.raw_decode(window.text, window.position)
            return value
        except json.JSONDecodeError as error:
            if len(window.text) >= LONGEST_LOOK or not window.more_after(error):
                raise


def _layout_of_broken(window: JsonWindow, usual: Layout, mark: str) -> Layout:
    """The layout where the first value cannot be parsed, or is very long."""
    if len(window.text) >= LONGEST_LOOK:
        one_line: Layout = "lines" if "\n" not in window.text[window.position :] else usual
        return "list" if mark == "[" else "object" if _opens_list(window) else one_line
    line, more, _ = window.text[window.position :].partition("\n")
    return "list" if mark == "[" and not (line.rstrip().endswith("]") and more) else usual


def _opens_list(window: JsonWindow) -> bool:
    """Whether the first list in the object at the window's position is one of records."""
    try:
        window.expect("{", "an object")
        while window.next_mark() == '"':
            name = window.value("")
            window.expect(":", "a colon")
            if window.next_mark() == "[":
                window.position += 1
                return window.next_mark() == "{" and _starts_records(name, window.value(""))
            window.value("")
            window.expect(",", "a comma")
    except DataError:
        pass
    return False


def _layout_of_one(value: Any, usual: Layout, *, spread: bool) -> Layout:
    """The layout of a file that holds one JSON value, `spread` over several lines or in one."""
    if isinstance(value, list):
        return "list"
    lists = [(name, held) for name, held in value.items() if isinstance(held, list) and held]
    wrapped = any(_starts_records(name, held[0]) for name, held in lists)
    whole = (wrapped and shape_of(value) is None) or spread or usual != "lines"
    return "object" if whole else "lines"


def _starts_records(name: str, first: Any) -> bool:
    """Whether a list of this name, whose first value this is, is one of records."""
    if not isinstance(first, dict) or is_turn(first):
        return False
    return shape_of(first) is not None or name not in LISTS


def _object_records(window: JsonWindow, path: Path, faults: Faults | None) -> Iterator[Record]:
    """The records of the one list that the object in a file holds, or the object itself."""
    faults, fields, found = strict_if_none(faults), {}, ""
    window.expect("{", "a JSON object, starting with {")
    start = f"{path}, line {window.line()}"
    first = True
    while window.more_items("}", first=first):
        first = False
        at = f"{path}, line {window.line()}"
        name = window.value(at) if window.next_mark() == '"' else None
        if name is None:
            raise window.malformed(window.position, "a field's name in quotes")
        if name in fields:
            raise repeated_key(name, at)
        window.expect(":", "a colon")
        mark = window.next_mark()
        fields[name] = None
        if mark != "[":
            fields[name] = window.value(at)
            continue
        window.position += 1
        held = _List(window, name, path, faults)
        if not held.of_records:
            fields[name] = held.every()
            continue
        if found:
            raise _two_lists(found, name, path)
        found = name
        yield from held.records()
    if mark := window.next_mark():
        listed = "[ before the first record and ] after the last"
        raise window.malformed(
            window.position, listed if mark == "," else "nothing after the closing }"
        )
    if not found:
        _refuse_columns(fields, start)
        yield start, fields
        return
    for name in fields:
        if name != found:
            faults.ignore(f"field {name!a} beside the list {found!a}", start)


def _refuse_columns(fields: dict[str, Any], at: str) -> None:
    """Refuses an object whose fields hold the values of all records, by number or in lists."""
    values = list(fields.values())
    by_number = all(
        isinstance(value, dict) and value.keys() == values[0].keys() for value in values
    )
    in_lists = all(isinstance(value, list) and len(value) == len(values[0]) for value in values)
    if len(values) > 1 and (by_number or in_lists) and values[0]:
        raise DataError(
            "object holds columns, not records",
            got=f"fields {', '.join(ascii(name)[1:-1] for name in fields)}"[:200],
            at=at,
            expected="a list of records",
            do="write one object a row (in pandas: orient='records')",
        )


class _List:
    """The list that the window has just entered: of records, or just a value."""

    def __init__(self, window: JsonWindow, name: str, path: Path, faults: Faults) -> None:
        self._window, self._path, self._faults = window, path, faults
        self._at = f"{path}, line {window.line()}"
        self._bad: BadRecord | None = None
        self._first: list[Any] = []
        if window.more_items("]", first=True):
            self._at = f"{path}, line {window.line()}"
            self._open = True
            try:
                self._first.append(window.value(self._at))
            except BadRecord as error:
                self._bad = error
        else:
            self._open = False
        of_records = bool(self._first) and _starts_records(name, self._first[0])
        self.of_records = of_records or (self._bad is not None and name not in LISTS)

    def every(self) -> list[Any]:
        """Its values."""
        values = list(self._first)
        if self._bad is not None:
            raise self._bad
        while self._open and self._window.more_items("]", first=False):
            values.append(self._window.value(self._at))
        return values

    def records(self) -> Iterator[Record]:
        """Its records."""
        if self._bad is not None:
            self._faults.saw()
            self._faults.skip(self._bad)
        else:
            yield self._at, self._first[0]
        yield from elements(self._window, self._path, self._faults, first=False)


def _two_lists(one: str, other: str, path: Path) -> DataError:
    return DataError(
        "object holds more than one list of records",
        got=f"{ascii(one)[:40]} and {ascii(other)[:40]}",
        at=path,
        expected="one list",
        do="write each into a file of its own",
    )


def files_at(path: Path) -> list[Path]:
    """The file itself, or the folder's files by name.

    Raises: DataError when there are none.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _is_ours(file))
        if found:
            return found
        below = sorted({str(file.parent) for file in path.rglob("*") if _is_ours(file)})
        arrow = any(path.rglob("*.arrow"))
        raise DataError(
            "folder has no conversations",
            at=path,
            expected=f"files that end in {EXPECTED}",
            do=f"name {' or '.join(below[:3])}"
            if below
            else "write its .arrow files as Parquet: dataset.to_parquet(NAME)"
            if arrow
            else None,
        )
    if not path.exists():
        raise DataError(
            "no such file of conversations",
            got=f"{path}, a link to {link}" if (link := lost_link(path)) else str(path),
            expected=f"a file ({EXPECTED}), or a folder of such",
            do="name the folder: patterns are not expanded"
            if "*" in str(path)
            else hub_advice(path),
        )
    if not path.is_file():
        raise DataError(
            "conversations are not in a plain file",
            got=str(path),
            expected="a file that can be read more than once, not a pipe or device",
            do="write them to a file first",
        )
    return [path]


def _is_ours(file: Path) -> bool:
    named = plain_name(file).endswith(SUFFIXES) and not file.name.startswith(".")
    return named and file.name not in NO_RECORDS and file.is_file()
