"""The format of a store's files: how a record is written and read, and the errors of bad files.

A record is the tokens as little-endian uint16 (uint32 when the vocabulary needs it), then the
mask, one bit a token, filled up to a whole word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from tulu_jax.errors import DataError
from tulu_jax.files import advice

FORMAT_VERSION = 1
TOKENS_FILE, INDEX_FILE, META_FILE = "tokens.array_record", "index.npz", "meta.json"
WRITER_OPTIONS = "group_size:16,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0"


class Example(NamedTuple):
    """One tokenized conversation as it goes into a store."""

    id: str
    tokens: Int[np.ndarray, "T"]
    loss_mask: Bool[np.ndarray, "T"]


class Gathered(NamedTuple):
    """Examples one after the other: their tokens and masks joined, and the length of each."""

    tokens: Int[np.ndarray, "total"]
    loss_mask: Bool[np.ndarray, "total"]
    lengths: Int[np.ndarray, "examples"]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive examples as a store holds them: their records joined, and their index.

    `id_bytes` are the ids in UTF-8, one after the other; id i ends at `id_ends[i]`.
    """

    records: UInt8[np.ndarray, "bytes"]
    lengths: Int[np.ndarray, "examples"]
    loss_tokens: Int[np.ndarray, "examples"]
    id_bytes: UInt8[np.ndarray, "id_bytes"]
    id_ends: Int[np.ndarray, "examples"]


def token_dtype(vocab_size: int) -> np.dtype:
    """The type in which tokens of such a vocabulary are stored."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def make_block(examples: Sequence[Example], vocab_size: int) -> Block:
    """The examples as a block.

    Raises: DataError for an example that cannot be stored.
    """
    dtype = token_dtype(vocab_size)
    for example in examples:
        _check_example(example, vocab_size)
    id_bytes, id_ends = join_ids(example.id for example in examples)
    records = b"".join(encode_record(e.tokens, e.loss_mask, dtype) for e in examples)
    return Block(
        np.frombuffer(records, dtype=np.uint8),
        np.array([len(e.tokens) for e in examples], dtype=np.int32),
        np.array([np.count_nonzero(e.loss_mask) for e in examples], dtype=np.int32),
        id_bytes,
        id_ends,
    )


def join_ids(ids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """The ids' UTF-8 bytes, one after the other, and where each ends."""
    encoded = [name.encode() for name in ids]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def split_ids(id_bytes: bytes, id_ends: Int[np.ndarray, "examples"]) -> list[str]:
    """The ids that `join_ids` joined."""
    ends = id_ends.tolist()
    return [id_bytes[a:b].decode() for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def encode_record(tokens: np.ndarray, loss_mask: np.ndarray, dtype: np.dtype) -> bytes:
    """One example as bytes."""
    bits = np.packbits(np.asarray(loss_mask, dtype=bool), bitorder="little").tobytes()
    fill = -len(bits) % dtype.itemsize
    return np.asarray(tokens).astype(dtype).tobytes() + bits + b"\0" * fill


def record_ends(lengths: Int[np.ndarray, "examples"], dtype: np.dtype) -> np.ndarray:
    """Where each of the records of these lengths ends, in bytes, when they are joined."""
    bits = dtype.itemsize * 8
    lengths = lengths.astype(np.int64)
    return np.cumsum((lengths - (-lengths // bits)) * dtype.itemsize)


def decode_records(words: np.ndarray, lengths: Int[np.ndarray, "examples"]) -> Gathered:
    """Tokens and masks of records that lie one after the other in `words`."""
    bits = words.dtype.itemsize * 8
    lengths = lengths.astype(np.int64)
    mask_words = -(-lengths // bits)
    is_token = _alternate(lengths, mask_words)
    packed = np.ascontiguousarray(words[~is_token])
    unpacked = np.unpackbits(packed.view(np.uint8), bitorder="little").view(bool)
    loss_mask = unpacked[_alternate(lengths, mask_words * bits - lengths)]
    return Gathered(words[is_token].astype(np.int32), loss_mask, lengths)


def _alternate(true_counts: np.ndarray, false_counts: np.ndarray) -> Bool[np.ndarray, "total"]:
    """Runs of True and False by turns; faster than index arithmetic by a factor of three."""
    runs = np.stack([true_counts, false_counts], axis=1).ravel()
    return np.repeat(np.tile([True, False], len(true_counts)), runs)


def _check_example(example: Example, vocab_size: int) -> None:
    tokens, mask = np.asarray(example.tokens), np.asarray(example.loss_mask)
    if len(tokens) == 0 or tokens.shape != mask.shape:
        got = f"{tokens.shape} tokens and {mask.shape} mask"
        raise DataError("tokens and mask do not fit", got=got, at=f"example {example.id}")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise DataError(
            "token id outside the vocabulary",
            got=int(tokens.max() if tokens.min() >= 0 else tokens.min()),
            at=f"example {example.id}",
            expected=f"0 to {vocab_size - 1}",
        )


def corrupt(path: Path, got: str, expected: str) -> DataError:
    """The error for a file of a store that is not what was written."""
    return DataError(
        "store is truncated or corrupt",
        got=got,
        at=path,
        expected=expected,
        do="delete the folder and run `tulu data prepare` again",
    )


def unwritable(path: Path, error: OSError) -> DataError:
    """The error for a store that cannot be written; one without a number is ArrayRecord's."""
    first = "free some space" if error.errno is None else advice(error)
    return DataError(
        "cannot write the store",
        got=error.strerror or str(error),
        at=path,
        do=" or ".join(filter(None, [first, OTHER_FOLDER])),
    )


OTHER_FOLDER = "choose another folder with --data_dir (DATA_DIR in training)"
