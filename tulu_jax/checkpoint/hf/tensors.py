"""Where the tensors of a model lie in its files, and how one is read.

A `TensorSpec` is the same for safetensors and for torch's files: a dtype, a shape and a place in a
file. `view` maps it into memory, so that slices of it touch only their own bytes.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np

from tulu_jax.errors import CheckpointError
from tulu_jax.files import kind_of, text_in
from tulu_jax.places import Address, Place, read_ranges

DOWNLOAD_AGAIN = "download or copy the file again"
PACKED = ("a gzip file", "a zstd file", "an xz file", "a bzip2 file")
OTHER_FORMATS = ("a GGUF file", "an HDF5 file")

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
"""Dtypes that weights may have."""
DTYPE_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


class Stored(Protocol):
    """A tensor of known dtype and shape that can be looked at."""

    @property
    def dtype(self) -> str:
        """Its stored dtype, as safetensors spells it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def file(self) -> Place:
        """The file it is in, for messages."""
        ...

    def view(self) -> np.ndarray:
        """Its values, read when they are touched."""
        ...


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Where a tensor lies: `start` counts bytes from the file's beginning."""

    file: Place
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int
    """Bytes from its first to the end of its last element."""
    strides: tuple[int, ...] | None = None
    """Elements from one index to the next, by axis; None: the last axis is dense, and so on."""

    def view(self) -> np.ndarray:
        """The tensor, mapped from its file: what is touched is read, and nothing else.

        Raises:
          CheckpointError: its dtype is none that weights have, or the file has shrunk.
        """
        if self.dtype not in DTYPES:
            raise other_dtype(self.dtype, self.dtype, self.file)
        if isinstance(self.file, Address):
            return _fetched(self)
        raw = np.frombuffer(_mapped(self.file, self.start, self.num_bytes), np.uint8)
        skip = self.start % mmap.ALLOCATIONGRANULARITY if self.num_bytes else 0
        return self.laid_out(raw[skip : skip + self.num_bytes])

    def laid_out(self, raw: np.ndarray) -> np.ndarray:
        """The tensor whose bytes are uint8[num_bytes], as a view of them."""
        flat = raw.view(DTYPES[self.dtype])
        if self.strides is None:
            return flat.reshape(self.shape)
        steps = [step * flat.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)


def _fetched(spec: TensorSpec) -> np.ndarray:
    """The whole tensor from a bucket."""
    try:
        data = read_ranges(spec.file, [(spec.start, spec.start + spec.num_bytes)])[0]
    except OSError as error:
        raise unread_weights(error, spec.file) from error
    return spec.laid_out(np.frombuffer(data, np.uint8))


def taken(stored: Stored, select: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The part of a tensor that `select` takes of it by views; little else is read.

    Raises:
      CheckpointError: as `TensorSpec.view`.
    """
    if isinstance(stored, TensorSpec) and isinstance(stored.file, Address):
        from tulu_jax.checkpoint.hf.remote import read_selected

        if stored.dtype not in DTYPES:
            raise other_dtype(stored.dtype, stored.dtype, stored.file)
        try:
            return read_selected(stored, select)
        except OSError as error:
            raise unread_weights(error, stored.file) from error
    return select(stored.view())


def unread_weights(error: OSError, file: Place) -> CheckpointError:
    """The error of a weights file that cannot be read."""
    return CheckpointError("weights file cannot be read", got=error.strerror or error, at=file)


def _mapped(file: Path, start: int, num_bytes: int) -> mmap.mmap | bytes:
    """The pages that hold `num_bytes` from `start`; unmapped when nothing looks at them."""
    if not num_bytes:
        return b""
    try:
        with file.open("rb") as opened:
            if opened.seek(0, 2) < start + num_bytes:
                raise CheckpointError(
                    "weights file shrank while it was read",
                    at=file,
                    do="wait until whatever writes it is done, then try again",
                )
            skip = start % mmap.ALLOCATIONGRANULARITY
            return mmap.mmap(
                opened.fileno(), num_bytes + skip, access=mmap.ACCESS_READ, offset=start - skip
            )
    except OSError as error:
        raise unread_weights(error, file) from error


def refuse_other_kinds(path: Place, head: bytes, expected: str) -> None:
    """Says what a weights file is by its first bytes, if that is something else that is known.

    Raises:
      CheckpointError: it is a Git LFS pointer, a web page, an archive, some text.
    """
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        kind = None if "safetensors" in expected else "a safetensors file"
    else:
        kind = kind_of(head) or text_in(head)
    if kind is None or not head:
        return  # an empty file is said to be cut short
    if "LFS" in kind:
        do = f"fetch the file itself: git lfs pull, in the clone, for {path.name}"
    elif kind in ("a safetensors file", "a zip archive"):
        ends = {"a safetensors file": ".safetensors", "a zip archive": ".bin (torch) or unpack it"}
        do = f"if it is whole, give it its true name: {ends[kind]}"
    elif kind in PACKED:
        do = "unpack it"
    elif kind in OTHER_FORMATS:
        do = "take the model in Hugging Face's format: *.safetensors or pytorch_model*.bin"
    else:
        do = DOWNLOAD_AGAIN
    raise CheckpointError(f"{path.name} holds no weights", got=kind, at=path, expected=expected,
                          do=do)  # fmt: skip


def other_dtype(dtype: str, found: str, file: Place) -> CheckpointError:
    """The error of a tensor whose dtype no weights have."""
    do = "give the model before it was quantised"
    if dtype == "F64":
        do = "save it in float32: in torch, model.float().save_pretrained(DIR)"
    return CheckpointError(
        "weights have a dtype that is not supported",
        got=found,
        at=file,
        expected=" or ".join(DTYPES),
        do=do,
    )


def read_tensor(tensor: Stored) -> np.ndarray:
    """One tensor in its stored dtype, in memory of its own; reads just its bytes.

    Raises:
      CheckpointError: its dtype is none that weights have, or the file has shrunk.
    """
    return np.array(tensor.view(), order="C")


def read_finite(tensor: Stored, name: str) -> np.ndarray:
    """One tensor in float32.

    Raises:
      CheckpointError: as `read_tensor`, or a number in it is NaN or infinite.
    """
    numbers = read_tensor(tensor)
    check_finite(numbers, name, tensor.file)
    return numbers.astype(np.float32)


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of float32, bfloat16 or float16.

    Raises:
      CheckpointError: any other name.
    """
    if name not in DTYPE_NAMES:
        raise CheckpointError("unknown dtype", got=repr(name), expected=" or ".join(DTYPE_NAMES))
    return DTYPES[DTYPE_NAMES[name]]


_TILE_ROWS = 512
_TILE_ROW_BYTES = 1024
"""A tile of 512 KiB, which stays in the processor's second cache while it is turned."""
_PADDING_BYTES = 64
"""Put after each row of a tile: rows whose distance is a power of two share few cache lines."""
_BLOCK_ELEMENTS = 2**18
"""Elements copied at a time where both sides are dense."""
_INFINITY = {DTYPES["F32"]: 0x7F800000, DTYPES["BF16"]: 0x7F80, DTYPES["F16"]: 0x7C00}
"""The bits of infinity; those of NaN are more."""
_UNSIGNED = {2: np.dtype(np.uint16), 4: np.dtype(np.uint32)}


def copy_cast(
    target: np.ndarray, source: np.ndarray, name: str, *, where: Place | None = None
) -> None:
    """Copies `source` into `target`, rounding to nearest even; quick for transposed matrices too.

    Args:
      target: written.
      source: read once.
      name: of the tensor, for messages.
      where: the file the tensor comes from: its numbers are then looked at as they pass.

    Raises:
      CheckpointError: a finite weight would become infinite, as above 65,504 in float16; or, with
        `where`, one is NaN or infinite.
    """
    if not _copy(target, source, name, look=where is not None):
        if np.all(np.isfinite(np.asarray(source, np.float32))):
            raise _overflow(target.dtype, source, name)
        raise not_finite(source, name, where)


def check_finite(numbers: np.ndarray, name: str, where: Place | None) -> None:
    """Refuses NaN and infinities.

    Raises:
      CheckpointError: naming the tensor.
    """
    if not all_finite(numbers):
        raise not_finite(numbers, name, where)


def not_finite(numbers: np.ndarray, name: str, where: Place | None) -> CheckpointError:
    """The error of a tensor that holds NaN or infinities; counts them."""
    wide = np.asarray(numbers, np.float32)
    return CheckpointError(
        "weights are not finite numbers",
        got=f"{np.count_nonzero(np.isnan(wide)):,} NaN and {np.count_nonzero(np.isinf(wide)):,} "
        f"infinite of {wide.size:,} in {name}",
        at=where,
        do="take the weights of before its training went wrong; if the original has none of these, "
        "copy the file again",
    )


def _copy(target: np.ndarray, source: np.ndarray, name: str, *, look: bool) -> bool:
    """Copies; False as soon as a number that was copied is not finite, if it is to look."""
    target, source = _merged(target, source)
    along, across = _dense_axis(source), _dense_axis(target)
    if along != across:
        axes = (across, along), (-2, -1)
        return _copy_turned(np.moveaxis(target, *axes), np.moveaxis(source, *axes), name, look)
    step = max(1, _BLOCK_ELEMENTS // max(1, math.prod(source.shape[1:])))
    for start in range(0, len(source), step):
        block = slice(start, start + step)
        _copy_part(target[block], source[block], name)
        if look and not all_finite(target[block]):
            return False
    return True


def all_finite(numbers: np.ndarray) -> bool:
    """Whether none of the floats is NaN or infinite; quick, and without memory of its own.

    These have all bits of the exponent set. Read as whole numbers with a sign they are those from
    `least` on, if positive, and as numbers without one the greatest of all, if negative.
    """
    least = _INFINITY.get(numbers.dtype)
    if least is None or not numbers.size:
        return bool(np.isfinite(numbers).all())
    width = numbers.dtype.itemsize
    if numbers.view(f"i{width}").max() >= least:
        return False
    return bool(numbers.view(f"u{width}").max() < least + 2 ** (8 * width - 1))


def _dense_axis(array: np.ndarray) -> int:
    """The axis along which neighbours lie closest in memory."""
    steps = [
        abs(step) if n > 1 else np.inf for step, n in zip(array.strides, array.shape, strict=True)
    ]
    return int(np.argmin(steps))


def _copy_turned(target: np.ndarray, source: np.ndarray, name: str, look: bool) -> bool:
    """Copies arrays [..., row, column], rows dense in the source and columns in the target.

    Tile by tile: a tile is read row by row into a small array, and that column by column into the
    target, so both are touched a whole cache line at a time. Copying a transposed matrix as it
    stands takes 2 to 6 times as long.
    """
    columns = _TILE_ROW_BYTES // target.itemsize
    padded = columns + _PADDING_BYTES // target.itemsize
    memory = np.empty((_TILE_ROWS, padded), target.dtype)
    for matrix in np.ndindex(source.shape[:-2]):
        to, of = target[matrix], source[matrix]
        for row in range(0, of.shape[0], _TILE_ROWS):
            for column in range(0, of.shape[1], columns):
                place = slice(row, row + _TILE_ROWS), slice(column, column + columns)
                part = of[place]
                tile = memory[: part.shape[0], : part.shape[1]]
                _copy_part(tile, part, name)
                if look and not all_finite(tile):
                    return False
                _copy_part(to[place], tile, name)
    return True


def _merged(target: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with neighbouring axes made one where that needs no copy in either."""
    shape: list[int] = []
    for axis, size in enumerate(source.shape):
        if shape and all(
            array.strides[axis - 1] == array.strides[axis] * size for array in (target, source)
        ):
            shape[-1] *= size
        else:
            shape.append(size)
    merged = tuple(shape) or (1,)
    return target.reshape(merged), source.reshape(merged)


def _copy_part(target: np.ndarray, source: np.ndarray, name: str) -> None:
    if target.dtype == source.dtype:
        bits = _UNSIGNED[target.dtype.itemsize]  # bfloat16 itself copies element by element
        target.view(bits)[...] = source.view(bits)
        return
    with np.errstate(over="ignore"):
        target[...] = np.asarray(source, target.dtype)
    if target.dtype == np.float16:
        _check_overflow(target, source, name)


def cast(tensor: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """`tensor` in `dtype`, rounded to nearest even; itself when it has that dtype already.

    Raises:
      CheckpointError: a finite weight would become infinite, as above 65,504 in float16.
    """
    if tensor.dtype == dtype:
        return tensor
    with np.errstate(over="ignore"):
        result = tensor.astype(dtype)
    if dtype == np.float16:
        _check_overflow(result, tensor, name)
    return result


def _check_overflow(result: np.ndarray, source: np.ndarray, name: str) -> None:
    if np.any(np.isinf(result) & np.isfinite(source)):
        raise _overflow(result.dtype, source, name)


def _overflow(dtype: np.dtype, source: np.ndarray, name: str) -> CheckpointError:
    wider = "bfloat16 or float32" if dtype == np.float16 else "float32"
    return CheckpointError(
        f"weights do not fit {dtype}",
        got=f"largest magnitude {np.max(np.abs(source.astype(np.float32))):g}",
        at=name,
        expected=f"at most {float(ml_dtypes.finfo(dtype).max):.6g}",
        do=f"use --dtype {wider}",
    )
