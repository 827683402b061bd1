"""Parts: some consecutive conversations of a split, encoded, each a file of its own.

A part is written whole or not at all, so that preparing can go on after the last one. Its content
depends on its conversations alone, not on who encoded it or when.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from tulu_jax.chat import Encoded, Messages, Tokenizer, check_bos, encode_many
from tulu_jax.chat.messages import has_chat_markers, is_blank, no_answer_to_train
from tulu_jax.data.specs import Conversation
from tulu_jax.data.store_format import Block, Example, join_ids, make_block, split_ids
from tulu_jax.errors import DataError
from tulu_jax.files import sha256, write_whole
from tulu_jax.processes import chunked

PART_CONVERSATIONS = 512
"""Conversations in a part; what a process encodes at a time and at most loses when killed."""

NO_MESSAGE = "no message"
TOO_LONG = "prompt fills max_length"
NOT_TO_BE_TRAINED = "no answer to train"


@dataclass(frozen=True, eq=False)
class Part:
    """One part: the examples kept, the ids of all conversations, and counts.

    `counts` has `read`, `truncated`, `dropped`, which gives the number dropped for each reason,
    and `answers` (`count_answers`). `found` says that the file was there already.
    """

    block: Block
    ids: list[str]
    id_hashes: UInt64[np.ndarray, "read"]
    counts: dict[str, Any]
    found: bool = False


@dataclass(frozen=True)
class PartJob:
    """A part yet to be made: its file, and the conversations it is of."""

    path: Path
    conversations: list[Conversation]

    @property
    def source(self) -> str:
        """sha256 (hex) over the conversations."""
        return sha256(repr(self.conversations))


def part_jobs(conversations: Iterable[Conversation], folder: Path) -> Iterator[PartJob]:
    """The conversations as jobs, in order; the parts' files lie in `folder`."""
    for number, some in enumerate(chunked(conversations, PART_CONVERSATIONS)):
        yield PartJob(part_path(folder, number), some)


def part_path(folder: Path, number: int) -> Path:
    """The file of a split's part `number`."""
    return folder / f"{number:07d}.npz"


@dataclass(frozen=True)
class PartMaker:
    """Makes parts of jobs; one in each process."""

    tokenizer: Tokenizer
    max_length: int

    def __call__(self, job: PartJob) -> Part:
        """The part, found in its file or else encoded and written there.

        Raises: DataError for a conversation that cannot be encoded; OSError.
        """
        source = job.source
        part = load_part(job.path, source)
        if part is not None:
            return replace(part, found=True)
        part = encode_part(job.conversations, self.tokenizer, self.max_length)
        save_part(job.path, part, source)
        return part


def encode_part(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, max_length: int
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
    return Part(make_block(examples, tokenizer.vocab_size), ids, _hashes(ids), counts)


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
    `not trained` because they say so; and, if there are any, how many messages of any role have
    chat `markers`.

    >>> chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": " "}]
    >>> count_answers([chat, [*chat, {"role": "assistant", "content": "No", "train": False}]])
    {'trained': 2, 'empty': 2, 'not trained': 1}
    """
    counts = {"trained": 0, "empty": 0, "not trained": 0}
    markers = 0
    for messages in conversations:
        for message in messages:
            markers += has_chat_markers(message["content"])
            if message["role"] == "assistant":
                trained = message.get("train", True)
                counts["trained" if trained else "not trained"] += 1
                counts["empty"] += trained and is_blank(message["content"])
    return counts | ({"markers": markers} if markers else {})


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


def save_part(path: Path, part: Part, source: str) -> None:
    """Writes the part's file, whole or not at all: a checksum, then arrays as NumPy saves them.

    `source` says which conversations it was made of.

    Raises: OSError.
    """
    id_bytes, id_ends = join_ids(part.ids)
    facts = json.dumps({"source": source, "counts": part.counts}).encode()
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
    write_whole(path, hashlib.sha256(content).digest() + content)


def load_part(path: Path, source: str | None = None) -> Part | None:
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
        if source not in (None, facts["source"]):
            return None
        block = Block(**{name: arrays[name] for name in Block.__dataclass_fields__})
        ids = split_ids(arrays["all_id_bytes"].tobytes(), arrays["all_id_ends"])
        return Part(block, ids, arrays["id_hashes"], facts["counts"])
