"""Parts: some consecutive conversations of a split, encoded, each a file of its own.

A part is written whole or not at all, so that preparing can go on after the last one. Its content
depends on its conversations alone, not on who encoded it or when.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from tulu_jax.chat import Encoded, Messages, Tokenizer, check_bos, encode_many
from tulu_jax.chat.messages import is_blank, no_answer_to_train
from tulu_jax.data.records import RecordRange, record_ranges
from tulu_jax.data.specs import Conversation
from tulu_jax.data.store_format import Block, Example, join_ids, make_block, split_ids
from tulu_jax.errors import DataError
from tulu_jax.files import sha256, write_whole

PART_CONVERSATIONS = 512
"""Conversations in a part; what a process encodes at a time and at most loses when killed."""

NO_MESSAGE = "no message"
TOO_LONG = "prompt fills max_length"
NOT_TO_BE_TRAINED = "no answer to train"


@dataclass(frozen=True, eq=False)
class Part:
    """What a part's file holds: the examples kept, the ids of all conversations, and counts.

    `source` says which conversations they were made of; `counts` has `read`, `truncated`,
    `dropped`, which gives the number dropped for each reason, and `answers` (`count_answers`).
    """

    source: str
    block: Block
    ids: list[str]
    id_hashes: UInt64[np.ndarray, "read"]
    counts: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Part `number` of a split, yet to be made of these conversations or records."""

    number: int
    source: str
    conversations: tuple[Conversation, ...] | tuple[RecordRange, ...]

    def path(self, folder: Path) -> Path:
        """The part's file in its folder."""
        return folder / f"{self.number:07d}.npz"

    def read(self) -> list[Conversation]:
        """The conversations."""
        found: list[Conversation] = []
        for one in self.conversations:
            found += one.read() if isinstance(one, RecordRange) else [one]
        return found


def jobs_of_conversations(conversations: Iterable[Conversation]) -> Iterator[Job]:
    """The jobs of conversations that are read one after the other."""
    iterator, number = iter(conversations), 0
    while some := tuple(islice(iterator, PART_CONVERSATIONS)):
        yield Job(number, _digest(conversation["id"] for conversation in some), some)
        number += 1


def jobs_of_files(paths: Sequence[str]) -> Iterator[Job]:
    """The jobs of conversations that lie in the files of a TFDS builder."""
    for number, ranges in enumerate(record_ranges(paths, PART_CONVERSATIONS)):
        names = (f"{Path(r.path).name}:{r.start}:{r.stop}" for r in ranges)
        yield Job(number, _digest(names), ranges)


def make_part(job: Job, folder: Path, *, tokenizer: Tokenizer, max_length: int) -> None:
    """Encodes the job's conversations and writes the part's file.

    Raises: DataError for a conversation that cannot be encoded; OSError.
    """
    part = encode_part(job.source, job.read(), tokenizer=tokenizer, max_length=max_length)
    save_part(job.path(folder), part)


def encode_part(
    source: str, conversations: Sequence[Conversation], *, tokenizer: Tokenizer, max_length: int
) -> Part:
    """The conversations as a part.

    Raises: DataError naming the conversation that cannot be encoded.
    """
    counts: dict[str, Any] = {"read": len(conversations), "truncated": 0, "dropped": {}}
    filled = [conversation for conversation in conversations if conversation["messages"]]
    if len(filled) < len(conversations):
        counts["dropped"][NO_MESSAGE] = len(conversations) - len(filled)
    examples = []
    every = _encode(filled, tokenizer, max_length)
    counts["answers"] = count_answers(conversation["messages"] for conversation in filled)
    for conversation, encoded in zip(filled, every, strict=True):
        if encoded.dropped:
            reason = why_dropped(conversation["messages"], encoded)
            counts["dropped"][reason] = counts["dropped"].get(reason, 0) + 1
            continue
        check_bos(encoded.tokens, tokenizer, at=conversation["id"])
        counts["truncated"] += encoded.truncated
        examples.append(Example(conversation["id"], encoded.tokens, encoded.loss_mask))
    ids = [conversation["id"] for conversation in conversations]
    return Part(source, make_block(examples, tokenizer.vocab_size), ids, _hashes(ids), counts)


def why_dropped(messages: Messages, encoded: Encoded) -> str:
    """Why no token of a conversation carries loss."""
    if no_answer_to_train(messages):
        return NOT_TO_BE_TRAINED
    if encoded.truncated:
        return TOO_LONG
    has_answer = any(message["role"] == "assistant" for message in messages)
    return "empty answer" if has_answer else "no answer"


def count_answers(conversations: Iterable[Messages]) -> dict[str, int]:
    """How many answers are `trained`, how many of these are `empty` or blank, and how many are
    `not trained` because they say so.

    >>> chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": " "}]
    >>> count_answers([chat, [*chat, {"role": "assistant", "content": "No", "train": False}]])
    {'trained': 2, 'empty': 2, 'not trained': 1}
    """
    counts = {"trained": 0, "empty": 0, "not trained": 0}
    for messages in conversations:
        for message in messages:
            if message["role"] == "assistant":
                trained = message.get("train", True)
                counts["trained" if trained else "not trained"] += 1
                counts["empty"] += trained and is_blank(message["content"])
    return counts


def _encode(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, max_length: int
) -> list[Encoded]:
    messages = [conversation["messages"] for conversation in conversations]
    try:
        return encode_many(messages, tokenizer, max_length=max_length, threads=1)
    except DataError:
        for conversation, one in zip(conversations, messages, strict=True):  # say which it was
            encode_many([one], tokenizer, threads=1, at=conversation["id"])
        raise


def _hashes(ids: Sequence[str]) -> UInt64[np.ndarray, "read"]:
    joined = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(joined, dtype="<u8")


def _digest(names: Iterable[str]) -> str:
    return sha256("\0".join(names))


def save_part(path: Path, part: Part) -> None:
    """Writes the part's file, whole or not at all.

    Raises: OSError.
    """
    write_part(path, pack_part(part))


def pack_part(part: Part) -> bytes:
    """What lies in the part's file: a checksum, then arrays as NumPy saves them."""
    id_bytes, id_ends = join_ids(part.ids)
    facts = json.dumps({"source": part.source, "counts": part.counts}).encode()
    stream = io.BytesIO()
    np.savez(
        stream,
        facts=np.frombuffer(facts, dtype=np.uint8),
        all_id_bytes=id_bytes,
        all_id_ends=id_ends,
        id_hashes=part.id_hashes,
        **vars(part.block),
    )
    content = stream.getvalue()
    return hashlib.sha256(content).digest() + content


def write_part(path: Path, content: bytes) -> None:
    """Writes the file of a packed part, whole or not at all.

    Raises: OSError.
    """
    write_whole(path, content)


def load_part(path: Path, source: str) -> Part | None:
    """The part in this file; None when there is none, or not of this source, or a broken one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != checksum:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        if facts["source"] != source:
            return None
        block = Block(**{name: arrays[name] for name in Block.__dataclass_fields__})
        ids = split_ids(arrays["all_id_bytes"].tobytes(), arrays["all_id_ends"])
        return Part(source, block, ids, arrays["id_hashes"], facts["counts"])


def check_ids(hashes: list[np.ndarray], part_ids: Callable[[int], list[str]], at: str) -> None:
    """Passes when no two conversations have one id.

    `hashes` are those of each part, `part_ids` the ids of the part of a number.

    Raises: DataError naming the id.
    """
    joined = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    order = np.argsort(joined, kind="stable")
    same = np.flatnonzero(joined[order[1:]] == joined[order[:-1]])
    if not len(same):
        return
    suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
    starts = np.concatenate([[0], np.cumsum([len(some) for some in hashes])])
    seen: set[str] = set()
    for number in np.unique(np.searchsorted(starts, suspects, side="right") - 1).tolist():
        ids = part_ids(number)
        for place in suspects[(suspects >= starts[number]) & (suspects < starts[number + 1])]:
            name = ids[int(place) - int(starts[number])]
            if name in seen:  # otherwise two ids have one hash
                raise DataError(
                    "two conversations have one id",
                    got=repr(name),
                    at=at,
                    do="look for rows that occur twice in the raw files",
                )
            seen.add(name)
