"""Anyone's own conversations: JSON files train without any code.

A file's path is its dataset's name, wherever a dataset is named; so is that of a folder of files:

    tulu data inspect my/chat.jsonl
    tulu train --gin.MIXTURE_OR_TASK_NAME=tulu_v1_human,my/chat.jsonl ...

The task `tulu_jsonl` is for programs that know datasets by fixed names, such as SeqIO's: it reads
the files in the folder `jsonl` of the raw folder, or else those in the raw folder itself.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.raw_files import Record, list_field, read_json_list, read_jsonl, text_field
from tasks.record_ids import DistinctIds
from tulu_jax.chat import check_messages
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, add_resolver, register
from tulu_jax.errors import DataError

SUFFIXES = (".jsonl", ".json")
GENERIC = ("all", "chat", "conversations", "data", "dataset", "messages", "test", "train", "valid")
"""File names that say so little that the folder's name is put before them."""


def read(
    path: str | Path, *, name: str = "jsonl", faults: Faults | None = None, **_: Any
) -> Iterator[Conversation]:
    """The conversations of a file, or of all files in a folder by name.

    `.jsonl` has one record a line, `.json` a list of them. A record has `messages`, a list of
    {role, content} whose roles are system, user and assistant; or else `prompt` and `completion`,
    which become a message of the user and one of the assistant. Its `id`, if it has one, must be
    text or a whole number; without, it is `<name>_<running number>`. Other fields are not used.

    Differs from open-instruct: that trains `prompt` and `completion` as bare text, joined by a
    space where neither has one, without the chat format; here they are a conversation like others.

    Raises: DataError for a path that cannot be read, and a folder without such files.
    """
    distinct = DistinctIds()

    def convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
        messages = _messages(row, at)
        yield {
            "dataset": name,
            "id": distinct(_id(row, at) or f"{name}_{index}"),
            "messages": messages,
        }

    rows = chain.from_iterable(_records(file, faults) for file in _files(Path(path)))
    return convert_rows(rows, convert, faults)


def spec_for_jsonl(path: str | Path) -> DatasetSpec:
    """The dataset that a file or folder is; its task is `tulu_jsonl_<file name>`.

    Raises: DataError when there is nothing that `read` could read.
    """
    path = Path(path).expanduser().absolute()
    _files(path)
    return _spec(Path(os.path.normpath(path)))


@dataclass(frozen=True)
class _ReadPath:
    """`read` of one path. Unlike a closure, it can be sent to other processes."""

    filename: str
    name: str

    def __call__(
        self, raw_dir: Path, *, faults: Faults | None = None, **_: Any
    ) -> Iterator[Conversation]:
        return read(Path(raw_dir) / self.filename, name=self.name, faults=faults)


@functools.cache
def _spec(path: Path) -> DatasetSpec:
    name = f"jsonl_{_plain_name(path)}"
    return DatasetSpec(
        name=name,
        version="1.0.0",
        description=f"The conversations in {path.name}.",
        citation="",
        licence="not known",
        homepage="",
        sources=(Source("", str(path)),),
        read=_ReadPath(path.name, name),
    )


def _plain_name(path: Path) -> str:
    """A file's name in the letters that a task name may have."""
    stem = path.stem if path.suffix in SUFFIXES else path.name
    if stem.lower() in GENERIC and path.parent.name:
        stem = f"{path.parent.name}_{stem}"
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "file"


@add_resolver
def _resolve(name: str) -> DatasetSpec | None:
    """The dataset of a name that is a path; None for other names."""
    is_path = name.endswith(SUFFIXES) or "/" in name or os.sep in name
    return spec_for_jsonl(name) if is_path else None


def _files(path: Path) -> list[Path]:
    """The file itself, or the folder's files by name.

    Raises: DataError when there are none.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if found:
            return found
        raise DataError(
            "folder has no conversations", at=path, expected="files that end in .jsonl or .json"
        )
    if not path.exists():
        raise DataError(
            "no such file of conversations", got=str(path), expected="a .jsonl file, or a folder"
        )
    if path.suffix not in SUFFIXES:
        raise DataError(
            "file of conversations has another format",
            got=path.name,
            at=path.parent,
            expected="a name that ends in .jsonl or .json",
            do="unpack or convert it",
        )
    return [path]


def _records(path: Path, faults: Faults | None) -> Iterator[Record]:
    return read_jsonl(path, faults) if path.suffix == ".jsonl" else read_json_list(path, faults)


def _messages(row: dict[str, Any], at: str) -> list[dict[str, str]]:
    if "messages" in row:
        messages = list_field(row, "messages", at=at)
        check_messages(messages, at)
        return [{"role": message["role"], "content": message["content"]} for message in messages]
    if "prompt" not in row and "completion" not in row:
        raise DataError(
            "record has no conversation",
            got=f"fields {', '.join(ascii(name)[1:-1] for name in row)[:200] or 'none'}",
            at=at,
            expected="messages, or prompt and completion",
        )
    return [
        {"role": "user", "content": text_field(row, "prompt", at=at)},
        {"role": "assistant", "content": text_field(row, "completion", at=at)},
    ]


def _id(row: dict[str, Any], at: str) -> str:
    """The record's own id; "" when it has none."""
    given = row.get("id")
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    return text_field(row, "id", at=at, optional=True)


SPEC = register(
    DatasetSpec(
        name="jsonl",
        version="1.0.0",
        description="Conversations of your own, from the .jsonl and .json files in a folder.",
        citation="",
        licence="not known",
        homepage="docs/add_a_dataset.md",
        sources=(
            Source(
                "",
                ".",
                manual="put .jsonl files into a folder of their own and name it with --raw_dir",
            ),
        ),
        read=read,
    )
)
