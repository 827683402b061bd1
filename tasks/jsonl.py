"""Anyone's own conversations: files train without any code.

A file's path is its dataset's name, wherever a dataset is named; so is that of a folder of files:

    tulu data inspect my/chat.jsonl
    tulu train --gin.MIXTURE_OR_TASK_NAME=tulu_v1_human,my/chat.jsonl ...

The task `tulu_jsonl` is for programs that know datasets by fixed names, such as SeqIO's: it reads
the files in the folder `jsonl` of the raw folder, or else those in the raw folder itself.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.own.files import SUFFIXES, files_at, plain_name
from tasks.own.say import recognise
from tasks.own.shapes import Converter, Shape, parse_columns, renamed
from tasks.raw_files import strict_if_none, text_field
from tasks.record_ids import DistinctIds
from tulu_jax.chat.messages import is_blank
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, add_resolver, register
from tulu_jax.errors import ConfigError
from tulu_jax.files import sha256, user_path

GENERIC = ("all", "chat", "conversations", "data", "dataset", "messages", "test", "train", "valid")
"""File names that say so little that the folder's name is put before them."""

LONGEST_NAME = 80
"""More letters of a file's name are not part of its task's, which names files itself."""

OPTIONS = {"columns": None, "tools": "refuse", "empty": "keep"}
"""Reading options of a user's files: `columns` names those that hold the conversation
(`shapes.parse_columns`), `tools` writes calls of tools as `text`, `empty` lets answers without text
`drop` out of training."""

DESCRIBED = 5
"""Files of a folder that are described before they are read."""

_CHOICES = {"tools": ("refuse", "text"), "empty": ("keep", "drop")}


def read(
    path: str | Path,
    *,
    name: str = "jsonl",
    columns: Any = None,
    tools: str = "refuse",
    empty: str = "keep",
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """The conversations of a file, or of all files in a folder by name.

    Formats are those of `tasks/own/files.py`, shapes of records those of `tasks/own/shapes.py`. A
    record's `id`, if it has one, must be text or a whole number; without, it is
    `<name>_<running number>`. What else a record holds is honoured, refused or counted
    (`tasks/own/fields.py`).

    Differs from open-instruct: that trains `prompt` and `completion` as bare text, joined by a
    space where neither has one, without the chat format; here they are a conversation like others.

    Raises: DataError for a path that cannot be read, a folder without such files, and records of
        no known shape; ConfigError for an option that is not understood.
    """
    options = _checked(columns=columns, tools=tools, empty=empty)
    faults = strict_if_none(faults)
    distinct = DistinctIds()
    converter = Converter(faults, tools=tools == "text")
    columns = options["columns"]
    found = (recognise(file, columns, tools=converter.tools) for file in files_at(Path(path)))
    rows = ((at, (one.shape, row)) for one in found for at, row in one.file.records(faults))

    def convert(
        index: int, given: tuple[Shape, dict[str, Any]], *, at: str
    ) -> Iterator[Conversation]:
        row = renamed(given[1], columns, at)
        messages = converter.messages(row, given[0], at)
        own_id = _id(row, at)
        if empty == "drop" and not _has_text_to_train(messages):
            faults.leave_out("no answer with text")
            return
        yield {
            "dataset": name,
            "id": distinct(own_id or f"{name}_{index}"),
            "messages": messages,
        }

    return convert_rows(rows, convert, faults)


def describe(path: str | Path, **options: Any) -> list[str]:
    """What is recognised in a file, or in the first files of a folder; one or two lines each.

    Raises: as `read`.
    """
    chosen = _checked(**options)
    files = files_at(Path(path))
    lines = []
    for file in files[:DESCRIBED]:
        tools = chosen["tools"] == "text"
        lines += recognise(file, chosen["columns"], tools=tools).lines()
    if len(files) > DESCRIBED:
        lines.append(f"and {len(files) - DESCRIBED:,} files more")
    return lines


def _checked(**options: Any) -> dict[str, Any]:
    """The options, `columns` taken apart.

    Raises: ConfigError for one that is not understood.
    """
    for name, known in _CHOICES.items():
        if options[name] not in known:
            raise ConfigError(
                f"unknown value of option {name}",
                got=repr(options[name]),
                expected=" or ".join(known),
            )
    return {**options, "columns": parse_columns(options["columns"])}


def _has_text_to_train(messages: list[dict[str, Any]]) -> bool:
    """Whether an answer that is trained has text; those without are from now on not trained."""
    answers = [one for one in messages if one["role"] == "assistant" and one.get("train", True)]
    for answer in answers:
        if is_blank(answer["content"]):
            answer["train"] = False
    return not answers or any(answer.get("train", True) for answer in answers)


def spec_for_jsonl(path: str | Path) -> DatasetSpec:
    """The dataset that a file or folder is; its task is `tulu_jsonl_<file name>`.

    Raises: DataError when there is nothing that `read` could read; ConfigError for what is no path.
    """
    found = user_path(path, name="path of conversations")
    files_at(found)
    return _spec(found)


@dataclass(frozen=True)
class _ReadPath:
    """`read` of one path. Unlike a closure, it can be sent to other processes."""

    filename: str
    name: str

    def __call__(self, raw_dir: Path, **options: Any) -> Iterator[Conversation]:
        return read(Path(raw_dir) / self.filename, name=self.name, **options)


@dataclass(frozen=True)
class _DescribePath:
    """`describe` of one path."""

    filename: str

    def __call__(self, raw_dir: Path, **options: Any) -> list[str]:
        return describe(Path(raw_dir) / self.filename, **options)


@functools.cache
def _spec(path: Path) -> DatasetSpec:
    name = f"jsonl_{_plain_name(path)}"
    return DatasetSpec(
        name=name,
        version="1.0.0",
        description=f"The conversations in {ascii(path.name)[1:-1]}.",
        citation="",
        licence="not known",
        homepage="",
        sources=(Source("", str(path)),),
        options=OPTIONS,
        read=_ReadPath(path.name, name),
        own=True,
        describe=_DescribePath(path.name),
    )


def _plain_name(path: Path) -> str:
    """A file's name in the letters that a task name may have."""
    name = plain_name(path)
    stem = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
    if stem in GENERIC and path.parent.name:
        stem = f"{path.parent.name.lower()}_{stem}"
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_") or "file"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}_{sha256(name)[:8]}"


@add_resolver
def _resolve(name: str) -> DatasetSpec | None:
    """The dataset of a name that is a path; None for other names."""
    named = plain_name(Path(name)).endswith(SUFFIXES) or name.startswith("~")
    is_path = named or "/" in name or os.sep in name or os.path.exists(name)
    return spec_for_jsonl(name) if is_path else None


def _id(row: dict[str, Any], at: str) -> str:
    """The record's own id; "" when it has none."""
    given = row.get("id")
    if isinstance(given, float) and (math.isnan(given) or given.is_integer()):
        return "" if math.isnan(given) else str(int(given))  # as tables hold whole numbers
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    return text_field(row, "id", at=at, optional=True)


SPEC = register(
    DatasetSpec(
        name="jsonl",
        version="1.0.0",
        description="Conversations of your own, from the files in a folder.",
        citation="",
        licence="not known",
        homepage="docs/data.md",
        sources=(
            Source(
                "",
                ".",
                manual="put .jsonl files into a folder of their own and name it with --raw_dir",
            ),
        ),
        options=OPTIONS,
        read=read,
        own=True,
        describe=describe,
    )
)
