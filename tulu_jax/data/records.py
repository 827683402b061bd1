"""Conversations from the ArrayRecord files of a TFDS builder, decoded without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tulu_jax.data.specs import Conversation
from tulu_jax.errors import DataError

_OPTIONS = "readahead_buffer_size:0"

NOT_TRAINED = b"no"
"""What `messages/train` of a message says that carries no loss."""


@dataclass(frozen=True)
class RecordRange:
    """Records `start` to `stop` of one file."""

    path: str
    start: int
    stop: int

    def read(self) -> list[Conversation]:
        """The conversations of the range.

        Raises: DataError for a file that is not what TFDS wrote.
        """
        return [_conversation(record) for record in _read(self)]


def record_ranges(paths: Sequence[str], size: int) -> list[tuple[RecordRange, ...]]:
    """The records of all files, in order, cut into pieces of `size`; the last may be smaller.

    Raises: DataError for a file that is not what TFDS wrote.
    """
    pieces, piece, room = [], [], size
    for path in paths:
        count, start = _count(path), 0
        while start < count:
            stop = min(count, start + room)
            piece.append(RecordRange(path, start, stop))
            room -= stop - start
            start = stop
            if not room:
                pieces.append(tuple(piece))
                piece, room = [], size
    return [*pieces, tuple(piece)] if piece else pieces


def bytes_features(path: str) -> Iterator[dict[str, list[bytes]]]:
    """The features of each record of a file, in order.

    Raises: DataError for a file that is not what TFDS wrote.
    """
    for number in range(_count(path)):
        for record in _read(RecordRange(path, number, number + 1)):
            features = _example_class().FromString(record).features.feature
            yield {name: list(value.bytes_list.value) for name, value in features.items()}


def _read(wanted: RecordRange) -> list[bytes]:
    try:
        reader = ArrayRecordReader(wanted.path, _OPTIONS)
        records = reader.read(range(wanted.start, wanted.stop))
        reader.close()
    except (RuntimeError, ValueError) as error:
        raise _broken(wanted.path, error) from error
    return records


def _count(path: str) -> int:
    try:
        reader = ArrayRecordReader(path, _OPTIONS)
        count = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError) as error:
        raise _broken(path, error) from error
    return count


def _broken(path: str, error: Exception) -> DataError:
    return DataError(
        "file of conversations is truncated or corrupt",
        got=error,
        at=path,
        do=f"delete {Path(path).parent} and run `tulu data prepare` again",
    )


def _conversation(record: bytes) -> Conversation:
    features = _example_class().FromString(record).features.feature
    dataset, name = (features[key].bytes_list.value[0].decode() for key in ("dataset", "id"))
    roles = features["messages/role"].bytes_list.value
    contents = features["messages/content"].bytes_list.value
    flags = features["messages/train"].bytes_list.value if "messages/train" in features else ()
    messages = decode_messages(roles, contents, flags)
    return {"dataset": dataset, "id": name, "messages": messages}


def encode_flags(conversation: Conversation) -> Conversation:
    """The conversation as a builder writes it: `train` as text, `NOT_TRAINED` or nothing."""
    written = [
        {**message, "train": "" if message.get("train", True) else NOT_TRAINED.decode()}
        for message in conversation["messages"]
    ]
    return {**conversation, "messages": written}


def decode_messages(
    roles: Sequence[bytes], contents: Sequence[bytes], flags: Sequence[bytes]
) -> list[dict[str, Any]]:
    """Messages from what a builder wrote; without any `flags` no message has `train`.

    >>> decode_messages([b"assistant"] * 2, [b"Yo", b"No"], [b"", b"no"])[1]
    {'role': 'assistant', 'content': 'No', 'train': False}
    """
    messages: list[dict[str, Any]] = [
        {"role": role.decode(), "content": content.decode()}
        for role, content in zip(roles, contents, strict=True)
    ]
    for message, flag in zip(messages, flags, strict=False):
        if flag == NOT_TRAINED:
            message["train"] = False
    return messages


@functools.cache
def _example_class() -> Any:
    """The class of `tf.train.Example`, of which only lists of bytes are declared."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="e", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, str, bool]) -> Any:
        declared = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = declared.field.add(name=field_name, number=number, label=label)
            if kind in ("string", "bytes"):
                added.type = field.TYPE_STRING if kind == "string" else field.TYPE_BYTES
            else:
                added.type, added.type_name = field.TYPE_MESSAGE, f".e.{kind}"
        return declared

    message("BytesList", ("value", 1, "bytes", True))
    message("Feature", ("bytes_list", 1, "BytesList", False))
    features = message("Features", ("feature", 1, "Features.FeatureEntry", True))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_MESSAGE,
        type_name=".e.Feature",
    )
    message("Example", ("features", 1, "Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("e.Example"))
