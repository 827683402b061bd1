"""What is said of a user's files before they are read: what was recognised, and an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.own.files import LAYOUTS, OwnFile, own_file
from tasks.own.shapes import (
    Converter,
    Shape,
    common_shape,
    no_conversation,
    renamed,
)
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError

Row = tuple[str, dict[str, Any]]

LOOKED_AT = 32
"""Records of a file by which its shape is told."""

SHOWN, _TEXT = 8, 40


@dataclass(frozen=True)
class Recognised:
    """A file with the shape of its first records. `example` is the first one's conversation, or
    what is wrong with it; `mapping` says what becomes what, and `unused` names fields of these
    records that are not used.
    """

    file: OwnFile
    shape: Shape
    mapping: str
    example: str
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """One or two lines of text."""
        how = LAYOUTS[self.file.layout]
        how += " whatever its name says" if self.file.unexpected else ""
        more = len(self.unused) - SHOWN
        names = [*self.unused[:SHOWN], *([f"{more} fields more"] if more > 0 else [])]
        unused = f"; not used: {', '.join(names)}" if names else ""
        return [
            f"{self.file.path.name}: {how}; {self.mapping}{unused}",
            f"    the first: {self.example}",
        ]


def recognise(path: Path, columns: Mapping[str, str], *, tools: bool = False) -> Recognised:
    """What the file is.

    Raises: DataError when it cannot be read, or its first records have no known shape.
    """
    file = own_file(path)
    bad = Faults()
    looked = list(islice(file.records(bad), LOOKED_AT))
    rows, missing = [], None
    for at, row in looked:
        try:
            rows.append((at, renamed(row, columns, at)))
        except DataError as error:
            missing = missing or error
    shape = common_shape(row for _, row in rows)
    if shape is None:
        if missing is not None:
            raise missing
        if rows:
            raise no_conversation(rows[0][1], rows[0][0])
        shape = "messages"  # whatever is wrong with every record is said when they are read
    faults = Faults()
    wrong = bad.messages[0] if bad.messages else ""
    example = _example(rows, shape, Converter(faults, tools=tools), wrong)
    names = [field for fields in faults.unused.values() for field in fields]
    return Recognised(
        file, shape, _mapping(rows, shape, columns), example, (*names, *faults.metadata)
    )


def _mapping(rows: list[Row], shape: Shape, columns: Mapping[str, str]) -> str:
    """What becomes what, and the columns that were named."""
    found = {name for _, row in rows for name in row}
    text = {
        "alpaca": "Alpaca: instruction and input -> user, in the templates of stanford_alpaca, "
        "output -> assistant",
        "sharegpt": "ShareGPT: conversations of from -> role and value -> text",
    }.get(shape)
    if text is None:
        kinds = ["messages of role and content"] if "messages" in found or not found else []
        if {"prompt", "completion"} <= found and not all("messages" in row for _, row in rows):
            kinds.append("prompt -> user, completion -> assistant")
        text = "; or ".join(kinds)
    system = [name for name in ("system", "system_prompt") if name in found]
    text += f", {system[0]} -> system" if system else ""
    given = ", ".join(f"{field}={column}" for field, column in columns.items())
    return f"{text} (columns {given})" if given else text


def _example(rows: list[Row], shape: Shape, converter: Converter, wrong: str) -> str:
    """The first conversation of the rows, in one line; all of them are looked at."""
    example = ""
    for at, row in rows:
        try:
            messages = converter.messages(row, shape, at)
        except DataError as error:
            wrong = wrong or str(error)
        except RecursionError:
            wrong = wrong or f"record is nested too deeply - at {at}"
        else:
            example = example or _brief(messages)
    return example or f"none that can be read: {wrong}"


def _brief(messages: list[dict[str, Any]]) -> str:
    """A conversation in one line.

    >>> _brief([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}])
    "user 'Hi', assistant 'Yo'"
    """
    shown = [
        f"{message['role']} {_short(message['content'])}"
        + ("" if message.get("train", True) else " (not trained)")
        for message in messages[:4]
    ]
    more = len(messages) - len(shown)
    return ", ".join(shown) + (f" and {more} messages more" if more > 0 else "")


def _short(text: str) -> str:
    return repr(text if len(text) <= _TEXT else text[:_TEXT] + "...")
