"""Safetensors files: where their tensors lie, and files written piece by piece.

A file is: 8 bytes, the header's length n, little-endian; n bytes of JSON naming each tensor's
dtype, shape and place; then the tensors' bytes without gaps. The library `safetensors` holds a
header against the file's real size, so a truncated or hostile file ends in a message. What it has
for writing wants all tensors of a file in memory; here they come one by one.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tulu_jax.checkpoint.checksums import ALGORITHM, ALGORITHMS
from tulu_jax.checkpoint.hf.tensors import (
    DOWNLOAD_AGAIN,
    DTYPES,
    ITEM_BYTES,
    TensorSpec,
    copy_cast,
    other_dtype,
    refuse_other_kinds,
    unread_weights,
)
from tulu_jax.checkpoint.lazy import made_ahead, write_bytes
from tulu_jax.errors import CheckpointError
from tulu_jax.files import HEAD_BYTES, write_json
from tulu_jax.places import Address, Place, writing

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000
"""Tensor bytes in one file, if the user names no other number."""
ALIGNMENT = 4096
"""What the place of the first tensor in a file is a multiple of: a page."""
PIECE_BYTES = 8 * 2**20
"""Bytes turned, written and hashed at a time."""
PIECE_ROWS = 64
"""Fewest rows of a piece: of a turned matrix they are neighbours, and lie in few cache lines."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_header(path: Place) -> dict[str, TensorSpec]:
    """The tensors of one file, in the order in which they lie there; no tensor is read.

    Raises:
      CheckpointError: the file is truncated or its header is not what it must be.
    """
    if isinstance(path, Address):
        return _read_far(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        refuse_other_kinds(path, head, "a safetensors file")
        with safe_open(path, framework="numpy") as tensors:
            stored = {name: tensors.get_slice(name) for name in tensors.offset_keys()}
            described = [(name, s.get_dtype(), tuple(s.get_shape())) for name, s in stored.items()]
    except OSError as error:
        raise unread_weights(error, path) from error
    except SafetensorError as error:
        raise CheckpointError(
            "safetensors file is truncated or damaged",
            got=str(error).removeprefix("Error while deserializing header: "),
            at=path,
            do=DOWNLOAD_AGAIN,
        ) from error
    specs: dict[str, TensorSpec] = {}
    start = 8 + int.from_bytes(head[:8], "little")
    for name, dtype, shape in described:  # the library has seen that there are no gaps
        if dtype not in ITEM_BYTES:
            raise other_dtype(dtype, f"{name} of {dtype}", path)
        num_bytes = math.prod(shape) * ITEM_BYTES[dtype]
        specs[name] = TensorSpec(path, dtype, shape, start, num_bytes)
        start += num_bytes
    return specs


def _read_far(file: Address) -> dict[str, TensorSpec]:
    from tulu_jax.checkpoint.hf.remote import remote_header

    try:
        return remote_header(file)
    except OSError as error:
        raise unread_weights(error, file) from error


@dataclass(frozen=True)
class Shard:
    """A file to write: its name, the tensors in order, and their shapes."""

    name: str
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def num_weights(self) -> int:
        """Numbers in it."""
        return sum(map(math.prod, self.tensors.values()))


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


def num_bytes_of(shard: Shard, dtype: np.dtype) -> int:
    """Bytes of the whole file."""
    return _beginning(shard, dtype).size + shard.num_weights * dtype.itemsize


def write_shard(
    path: Place, shard: Shard, dtype: np.dtype, tensors: Iterable[tuple[str, np.ndarray]]
) -> str:
    """Writes one file from tensors that come in the shard's order; returns its checksum.

    A tensor may be of another dtype and a view with its axes in any order: threads bring it into
    the file's piece by piece, while the piece before is written and hashed.

    Raises:
      CheckpointError: a finite weight would become infinite in float16.
    """
    digest = ALGORITHMS[ALGORITHM]()
    pieces = made_ahead(_pieces(shard, dtype, tensors))
    with _to_write(path) as file:
        for piece in itertools.chain([_beginning(shard, dtype)], pieces):
            write_bytes(file, piece)
            digest.update(piece)
    return digest.hexdigest()


def _to_write(path: Place) -> contextlib.AbstractContextManager[Any]:
    """A file without a buffer; in a bucket one that is there when it is whole."""
    return writing(path) if isinstance(path, Address) else path.open("wb", buffering=0)


def write_index(folder: Path, shards: Sequence[Shard], dtype: np.dtype) -> None:
    """Writes which file holds which tensor, if there are several files."""
    if len(shards) == 1:
        return
    weight_map = {name: shard.name for shard in shards for name in shard.tensors}
    total = sum(shard.num_weights for shard in shards) * dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / INDEX_NAME, index)


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
