"""Safetensors files, read one tensor at a time and written piece by piece.

A file is: 8 bytes, the header's length n, little-endian; n bytes of JSON naming each tensor's
dtype, shape and place; then the tensors' bytes without gaps. Every number in a header is checked
against the file's real size before anything is allocated, so a truncated or hostile file ends in a
message and not in a crash. Nothing is ever unpickled.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tulu_jax.checkpoint.checksums import new_digest
from tulu_jax.checkpoint.hf.tensors import (
    DOWNLOAD_AGAIN,
    DTYPES,
    ITEM_BYTES,
    TensorSpec,
    copy_cast,
    refuse_other_kinds,
)
from tulu_jax.checkpoint.parts import made_ahead, write_bytes
from tulu_jax.errors import CheckpointError
from tulu_jax.files import HEAD_BYTES

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_HEADER_BYTES = 100_000_000
"""Longest header the format allows."""
ALIGNMENT = 4096
"""What the place of the first tensor in a file is a multiple of: a page."""
PIECE_BYTES = 8 * 2**20
"""Bytes turned, written and hashed at a time."""
PIECE_ROWS = 64
"""Fewest rows of a piece: of a turned matrix they are neighbours, and lie in few cache lines."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_header(path: Path) -> dict[str, TensorSpec]:
    """The tensors of one file, checked against the file's size; no tensor is read.

    Raises:
      CheckpointError: the file is truncated or its header is not what it must be.
    """
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = _header_length(path, file, file_bytes)
            text = file.read(header_bytes)
    except OSError as error:
        raise CheckpointError("weights file cannot be read", got=error, at=path) from error
    entries = _parse_header(path, text)
    entries.pop("__metadata__", None)
    start = 8 + header_bytes
    specs = {name: _spec(path, name, entry, start) for name, entry in entries.items()}
    _check_coverage(path, specs, start, file_bytes)
    return specs


def _header_length(path: Path, file: BinaryIO, file_bytes: int) -> int:
    head = file.read(HEAD_BYTES)
    refuse_other_kinds(path, head, "a safetensors file")
    if file_bytes < 8:
        raise CheckpointError(
            "safetensors file is truncated",
            got=f"{file_bytes} bytes",
            at=path,
            expected="at least the 8 bytes of the header's length",
            do=DOWNLOAD_AGAIN,
        )
    length = int.from_bytes(head[:8], "little")
    if length > min(file_bytes - 8, MAX_HEADER_BYTES):
        raise CheckpointError(
            "safetensors header claims more bytes than there are",
            got=f"a header of {length:,} bytes in a file of {file_bytes:,}",
            at=path,
            expected=f"at most {min(file_bytes - 8, MAX_HEADER_BYTES):,}",
            do=DOWNLOAD_AGAIN,
        )
    file.seek(8)
    return length


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise CheckpointError("tensor is there twice", got=twice[:5], at=path)
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=no_duplicates)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            "safetensors header is not JSON", got=error, at=path, do=DOWNLOAD_AGAIN
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(
            "safetensors header is malformed",
            got=type(header).__name__,
            at=path,
            expected="a JSON object",
        )
    return header


def _spec(path: Path, name: str, entry: Any, data_start: int) -> TensorSpec:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (
        isinstance(dtype, str) and dtype in ITEM_BYTES
        and _are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2
        and offsets[1] - offsets[0] == math.prod(shape) * ITEM_BYTES[dtype]
    ):  # fmt: skip
        raise CheckpointError(
            "safetensors header is malformed",
            got=f"{name}: dtype={dtype!r} shape={shape} data_offsets={offsets}",
            at=path,
            expected="a known dtype, and offsets as far apart as dtype and shape need",
            do=DOWNLOAD_AGAIN,
        )
    return TensorSpec(path, dtype, tuple(shape), data_start + offsets[0], offsets[1] - offsets[0])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_coverage(
    path: Path, specs: Mapping[str, TensorSpec], start: int, file_bytes: int
) -> None:
    """Tensors must follow each other without gap or overlap and end where the file ends."""
    end = start
    for name, spec in sorted(specs.items(), key=lambda item: (item[1].start, item[1].num_bytes)):
        if spec.start != end:
            raise CheckpointError(
                "tensors overlap or leave a gap",
                got=f"{name} at byte {spec.start:,}",
                at=path,
                expected=f"byte {end:,}",
                do=DOWNLOAD_AGAIN,
            )
        end += spec.num_bytes
    if end != file_bytes:
        raise CheckpointError(
            "safetensors file is truncated" if file_bytes < end else "safetensors file is too long",
            got=f"{file_bytes:,} bytes",
            at=path,
            expected=f"{end:,} bytes, as its header says",
            do=DOWNLOAD_AGAIN,
        )


@dataclass(frozen=True)
class Shard:
    """A file to write: its name, the tensors in order, and their shapes."""

    name: str
    tensors: Mapping[str, tuple[int, ...]]


def plan_shards(
    tensors: Mapping[str, tuple[int, ...]], dtype: np.dtype, max_shard_bytes: int
) -> list[Shard]:
    """Files of at most `max_shard_bytes` of tensors each (a larger tensor gets its own).

    With tensors of 40, 40 and 30 bytes and at most 80 bytes a shard: [40, 40], [30].
    """
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        if groups[-1] and filled + size > max_shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = shape
        filled += size
    if len(groups) == 1:
        return [Shard(SINGLE_NAME, groups[0])]
    count = len(groups)
    return [
        Shard(f"model-{number:05d}-of-{count:05d}.safetensors", group)
        for number, group in enumerate(groups, 1)
    ]


def write_shard(
    path: Path, shard: Shard, dtype: np.dtype, tensors: Iterable[tuple[str, np.ndarray]]
) -> str:
    """Writes one file from tensors that come in the shard's order; returns its checksum.

    A tensor may be of another dtype and a view with its axes in any order: threads bring it into
    the file's piece by piece, while the piece before is written and hashed.

    Raises:
      CheckpointError: a finite weight would become infinite in float16.
    """
    digest = new_digest()
    pieces = made_ahead(_pieces(shard, dtype, tensors))
    with path.open("wb", buffering=0) as file:
        for piece in itertools.chain([_beginning(shard, dtype)], pieces):
            write_bytes(file, piece)
            digest.update(piece)
    return digest.hexdigest()


def _beginning(shard: Shard, dtype: np.dtype) -> np.ndarray:
    """What is in the file before the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shard.tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entry = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)  # so that tensors begin on pages
    return np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8)


def _pieces(
    shard: Shard, dtype: np.dtype, tensors: Iterable[tuple[str, np.ndarray]]
) -> Iterator[Callable[[], np.ndarray]]:
    """What makes the bytes of each piece, in order."""
    for (name, tensor), (planned, shape) in zip(tensors, shard.tensors.items(), strict=True):
        if (name, tensor.shape) != (planned, shape):
            raise ValueError(f"{name} {tensor.shape} came where {planned} {shape} was planned")
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        rows = max(PIECE_ROWS, PIECE_BYTES // max(1, row_bytes) // PIECE_ROWS * PIECE_ROWS)
        whole = np.atleast_1d(tensor)
        for start in range(0, len(whole) if whole.size else 0, rows):
            yield functools.partial(_piece, whole[start : start + rows], dtype, name)


def _piece(rows: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """The bytes of some rows, uint8[n], in memory of their own."""
    result = np.empty(rows.shape, dtype)
    copy_cast(result, rows, name)
    return result.reshape(-1).view(np.uint8)
