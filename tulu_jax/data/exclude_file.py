"""The format of exclude files: JSON lines that name examples to leave out of training.

The first line says what was looked at; each other names one example:

    {"format": "tulu-exclude", "version": 1, "split": "train", "datasets": {...}, ...}
    {"task": "tulu_dolly", "id": "dolly_17", "reason": "duplicate", "detail": "copy of dolly_3"}

`tulu data check --write_exclude` writes them. In one written by hand the first line may be missing,
and so may `reason` and `detail`; such lines count for every split of the task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tulu_jax.data.specs import TASK_PREFIX
from tulu_jax.errors import DataError
from tulu_jax.files import advice, kind_of_file, parse_json, whole_file

FORMAT, VERSION = "tulu-exclude", 1
LISTED = "listed"
"""The reason of a line that gives none."""

_LINE = '{"task": ..., "id": ..., "reason": ..., "detail": ...}'
_FIELDS = {"task", "id", "reason", "detail", "split"}


class Checked(NamedTuple):
    """The data that a file's ids of one task were taken from, as its first line says."""

    conversations: int | None
    raw_files: str | None


class Line(NamedTuple):
    """One example to leave out; the empty split stands for all."""

    task: str
    split: str
    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class ExcludeFile:
    """One file: the tasks its first line is about, in which split, and its lines."""

    split: str
    about: dict[str, Checked]
    lines: list[Line]

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks it is about."""
        return frozenset(self.about) | {line.task for line in self.lines}


def write_exclusion(
    path: Path, header: Mapping[str, Any], rows: Iterable[Mapping[str, str]]
) -> None:
    """Writes an exclude file of these rows, whole or not at all, in place of an older one.

    Raises: DataError when it cannot be written.
    """

    def lines() -> Iterator[str]:
        yield _json({"format": FORMAT, "version": VERSION, **header})
        yield from map(_json, rows)

    refuse_to_replace(path)
    try:
        with whole_file(path) as stream:
            stream.writelines(lines())
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError(
            "cannot write the exclude file", got=got, at=path, do=advice(error)
        ) from error


def refuse_to_replace(path: Path) -> None:
    """Refuses to write an exclude file over one that is none: it may be the user's data.

    Raises: DataError.
    """
    if path.is_dir():
        raise DataError("exclude file is a folder", at=path, do="name a file in it")
    if not path.exists():
        return
    with open(path, "rb") as stream:
        ours = stream.read(len(_START)) == _START
    if not ours and path.stat().st_size:
        raise DataError(
            "what lies there is no exclude file, so it is not replaced",
            at=path,
            do="name another file, or delete this one",
        )


_START = b'{"format": "' + FORMAT.encode() + b'"'


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_exclude_file(path: Path) -> ExcludeFile:
    """The file, read.

    Raises: DataError for a file that cannot be read or is no exclude file.
    """
    found: ExcludeFile | None = None
    for at, row in _objects(path):
        if "format" not in row:
            found = found or ExcludeFile("", {}, [])
            found.lines.append(_line(row, at, found.split))
        elif found is None:
            found = _header(row, at)
        else:
            do = "do not join exclude files: name them all, joined by commas"
            raise _malformed(at, "a second first line", do=do)
    if found is None:
        raise _malformed(str(path), "no line", do="write it with `tulu data check --write_exclude`")
    return found


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place and its JSON object."""
    try:
        kind = kind_of_file(path)
        if kind not in (None, "an empty file"):
            raise _malformed(str(path), f"{kind}", do="name an exclude file")
        with open(path, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    at = f"{path}, line {number}"
                    yield at, _object(line, at)
    except UnicodeDecodeError as error:
        do = "name an exclude file"
        raise _malformed(str(path), "bytes that are not UTF-8", do=do) from error
    except OSError as error:
        raise DataError(
            "exclude file cannot be read",
            got=error.strerror or str(error),
            at=path,
            do="write one with `tulu data check --write_exclude`",
        ) from error


def _object(line: str, at: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise _malformed(at, f"{error}") from error
    if not isinstance(row, dict):
        raise _malformed(at, repr(row)[:80])
    return row


def _header(row: dict[str, Any], at: str) -> ExcludeFile:
    if row["format"] != FORMAT or row.get("version") != VERSION:
        got = f"format {row['format']!r}, version {row.get('version')!r}"
        raise DataError(
            "exclude file is of another format",
            got=got,
            at=at,
            expected=f"format {FORMAT!r}, version {VERSION}",
            do="write it again with `tulu data check --write_exclude` of this version",
        )
    split, datasets = row.get("split", ""), row.get("datasets", {})
    if not isinstance(split, str) or not isinstance(datasets, dict):
        raise _malformed(at, f"split {split!r} and datasets {datasets!r}"[:80])
    about = {_full(task): _checked(facts, at) for task, facts in datasets.items()}
    return ExcludeFile(split, about, [])


def _checked(facts: Any, at: str) -> Checked:
    if not isinstance(facts, dict):
        raise _malformed(at, f"facts of a dataset that are {facts!r}"[:80])
    conversations, raw_files = facts.get("conversations"), facts.get("raw_files")
    if not isinstance(conversations, int | None) or not isinstance(raw_files, str | None):
        raise _malformed(at, f"conversations {conversations!r}, raw_files {raw_files!r}"[:80])
    return Checked(conversations, raw_files)


def _line(row: dict[str, Any], at: str, split: str) -> Line:
    unknown = row.keys() - _FIELDS
    if unknown:
        raise _malformed(at, f"the unknown field {sorted(unknown)[0]!r}")
    for name in ("task", "id"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise _malformed(at, f"{name} {row.get(name)!r}")
    for name in ("reason", "detail", "split"):
        if not isinstance(row.get(name, ""), str):
            raise _malformed(at, f"{name} {row[name]!r}")
    reason = row.get("reason") or LISTED
    return Line(_full(row["task"]), row.get("split", split), row["id"], reason)


def _full(task: str) -> str:
    return task if task.startswith(TASK_PREFIX) else TASK_PREFIX + task


def _malformed(at: str, got: str, *, do: str = "mend or delete the line") -> DataError:
    return DataError("not an exclude file", got=got, at=at, expected=f"lines {_LINE}", do=do)
