"""Safetensors files in a bucket: their headers, and parts of their tensors by ranges of bytes."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Iterator

import numpy as np

from tulu_jax.checkpoint.hf.tensors import (
    DOWNLOAD_AGAIN,
    DTYPES,
    ITEM_BYTES,
    TensorSpec,
    other_dtype,
)
from tulu_jax.errors import CheckpointError
from tulu_jax.places import Address, read_ranges

HEAD_BYTES = 2**17
"""Read of a file at first: nearly every header has room in it."""
HEADER_MOST = 100_000_000
"""As in the library `safetensors`."""
BLOCK_BYTES = 2**17
"""Shorter runs of bytes are not asked for one by one: what lies between is read with them."""
BLOCKS_MOST = 4096


def remote_header(file: Address) -> dict[str, TensorSpec]:
    """The tensors of a file in a bucket, in the order in which they lie there.

    Raises:
      CheckpointError: the file is truncated or its header is not what it must be.
    """
    size = file.stat().st_size
    head = read_ranges(file, [(0, min(size, HEAD_BYTES))])[0]
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > min(size - 8, HEADER_MOST):
        raise _damaged(file, f"a header of {length:,} bytes in a file of {size:,}")
    if len(head) < 8 + length:
        head += read_ranges(file, [(len(head), 8 + length)])[0]
    try:
        header = json.loads(head[8 : 8 + length])
        header.pop("__metadata__", None)
        rows = sorted(
            (*entry["data_offsets"], name, entry["dtype"], tuple(map(int, entry["shape"])))
            for name, entry in header.items()
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    specs: dict[str, TensorSpec] = {}
    end = 0
    for start, stop, name, dtype, shape in rows:
        if dtype not in ITEM_BYTES:
            raise other_dtype(dtype, f"{name} of {dtype}", file)
        if start != end or stop - start != math.prod(shape) * ITEM_BYTES[dtype]:
            raise _damaged(file, f"bytes {start} to {stop} of {name} {list(shape)}")
        specs[name] = TensorSpec(file, dtype, shape, 8 + length + start, stop - start)
        end = stop
    if 8 + length + end != size:
        raise _damaged(file, f"{size:,} bytes where its header needs {8 + length + end:,}")
    return specs


def _damaged(file: Address, got: str) -> CheckpointError:
    return CheckpointError(
        "safetensors file is truncated or damaged", got=got, at=file, do=DOWNLOAD_AGAIN
    )


def read_selected(spec: TensorSpec, select: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The part of a tensor that `select` takes of it by views; little else is read.

    Raises:
      OSError: it cannot be read.
    """
    dtype = DTYPES[spec.dtype]
    if not spec.num_bytes:
        return select(np.zeros(spec.shape, dtype))
    # Memory that nobody touches, and so takes none: a view of it says which bytes are wanted.
    stand_in = spec.laid_out(np.frombuffer(mmap.mmap(-1, spec.num_bytes), np.uint8))
    wanted = select(stand_in)
    if not wanted.size:
        return np.empty(wanted.shape, dtype)
    begin = stand_in.__array_interface__["data"][0]
    if not np.may_share_memory(wanted, stand_in):  # it was copied, which no view tells of
        data = _read(spec, [(0, spec.num_bytes)])
        return select(spec.laid_out(np.frombuffer(data, np.uint8)))
    low = wanted.__array_interface__["data"][0] - begin
    order, length, outer = _blocks(wanted)
    count = math.prod(wanted.shape[axis] for axis in outer)
    high = low + sum((n - 1) * s for n, s in zip(wanted.shape, wanted.strides, strict=True))
    high += dtype.itemsize
    if count == 1 or length < BLOCK_BYTES or count > BLOCKS_MOST:
        data = _read(spec, [(low, high)])
        return np.ndarray(wanted.shape, dtype, data, strides=wanted.strides)
    data = _read(
        spec, [(low + offset, low + offset + length) for offset in _offsets(wanted, outer)]
    )
    dense = np.frombuffer(data, dtype).reshape([wanted.shape[axis] for axis in order])
    return dense.transpose(np.argsort(order))


def _read(spec: TensorSpec, ranges: list[tuple[int, int]]) -> bytes:
    start = spec.start
    return b"".join(read_ranges(spec.file, [(start + low, start + high) for low, high in ranges]))


def _blocks(view: np.ndarray) -> tuple[list[int], int, list[int]]:
    """The axes from the widest steps to the narrowest, and the bytes of a run without a gap.

    And the axes along which there are gaps between runs: of the first two columns of an
    int8[4, 8] ([0, 1], 2, [0]).
    """
    order = sorted(range(view.ndim), key=lambda axis: (-view.strides[axis], axis))
    length, outer = view.itemsize, list(order)
    while outer and (view.shape[outer[-1]] == 1 or view.strides[outer[-1]] == length):
        length *= view.shape[outer.pop()]
    return order, length, outer


def _offsets(view: np.ndarray, axes: list[int]) -> Iterator[int]:
    if not axes:
        yield 0
        return
    first, rest = axes[0], axes[1:]
    for index in range(view.shape[first]):
        for offset in _offsets(view, rest):
            yield index * view.strides[first] + offset
