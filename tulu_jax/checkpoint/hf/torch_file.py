"""Weights that `torch.save` wrote (pytorch_model.bin, consolidated.00.pth), read without torch.

Since torch 1.6 such a file is a zip: ARCHIVE/data.pkl says which tensors there are, and every
ARCHIVE/data/KEY is a storage, not compressed, as raw numbers. The first is read by
`torch_pickle`, which runs nothing; the numbers are mapped from the file where they lie.

Source: torch/serialization.py and caffe2/serialize/inline_container.cc of torch 2.
"""

from __future__ import annotations

import math
import struct
import zipfile
from typing import IO

from tulu_jax.checkpoint.hf.tensors import (
    DOWNLOAD_AGAIN,
    ITEM_BYTES,
    TensorSpec,
    refuse_other_kinds,
)
from tulu_jax.checkpoint.hf.torch_pickle import PickleError, StoredTensor, read_pickle
from tulu_jax.errors import CheckpointError
from tulu_jax.files import HEAD_BYTES
from tulu_jax.places import Place

MAX_PICKLE_BYTES = 16 * 2**20
"""Longest data.pkl that is read: a few hundred bytes a tensor."""
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_CONVERT = (
    "convert it where you trust it: safetensors.torch.save_file("
    'torch.load(FILE, weights_only=True), "model.safetensors")'
)


def read_torch_file(path: Place) -> dict[str, TensorSpec]:
    """The tensors of one file, checked against the file's size; no tensor is read.

    Raises:
      CheckpointError: damaged, from before torch 1.6, or holding anything but named tensors.
    """
    try:
        with path.open("rb") as file:
            _check_is_zip(path, file)
            with zipfile.ZipFile(file) as archive:
                entries = {entry.filename: entry for entry in archive.infolist()}
                if len(entries) != len(archive.infolist()):
                    raise _damaged(path, "two entries of one name")
                prefix = _prefix(path, entries)
                _check_byte_order(path, archive, entries.get(f"{prefix}byteorder"))
                tensors = _tensors(path, archive, entries[f"{prefix}data.pkl"])
                storages = _Storages(path, file, entries, prefix, path.stat().st_size)
                return {name: storages.spec(name, tensor) for name, tensor in tensors.items()}
    except zipfile.BadZipFile as error:
        raise _damaged(path, str(error)[:200]) from error
    except (OSError, NotImplementedError, RuntimeError, EOFError, UnicodeError) as error:
        raise CheckpointError("weights file cannot be read", got=error, at=path) from error


def _damaged(path: Place, what: str) -> CheckpointError:
    return CheckpointError(
        "torch file is truncated or damaged",
        got=what,
        at=path,
        expected="a zip as torch.save writes it",
        do=DOWNLOAD_AGAIN,
    )


def _check_is_zip(path: Place, file: IO[bytes]) -> None:
    start = file.read(HEAD_BYTES)
    if start.startswith(_LEGACY_START) or start[:1] == b"\x80":
        raise CheckpointError(
            "torch file is a bare pickle, as torch before 1.6 wrote",
            at=path,
            expected="a zip, or safetensors: a pickle may run any program and is not loaded",
            do=_CONVERT,
        )
    if start[:4] != b"PK\x03\x04":
        refuse_other_kinds(path, start, "a zip as torch.save writes it")
        raise _damaged(path, f"first bytes {start[:4]!r}")


def _prefix(path: Place, entries: dict[str, zipfile.ZipInfo]) -> str:
    found = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise _damaged(path, f"{len(found)} entries named data.pkl")
    return found[0].removesuffix("data.pkl")


def _check_byte_order(path: Place, archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> None:
    if entry is not None and (entry.file_size > 16 or archive.read(entry) != b"little"):
        raise CheckpointError("torch file is not little-endian", at=path, do=_CONVERT)


def _tensors(
    path: Place, archive: zipfile.ZipFile, entry: zipfile.ZipInfo
) -> dict[str, StoredTensor]:
    if entry.file_size > MAX_PICKLE_BYTES:
        raise _damaged(path, f"a data.pkl of {entry.file_size:,} bytes")
    try:
        value = read_pickle(archive.read(entry))
    except PickleError as error:
        raise CheckpointError(
            "torch file holds more than tensors",
            got=error,
            at=path,
            expected="a dict of tensors; nothing else is looked at, and nothing was run",
            do="do not load it with torch either, unless you know where it comes from",
        ) from error
    if not isinstance(value, dict) or not value:
        raise _not_named_tensors(path, type(value).__name__)
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, StoredTensor):
            raise _not_named_tensors(path, f"{str(name)[:80]!r}: {type(tensor).__name__}")
    return value


def _not_named_tensors(path: Place, found: str) -> CheckpointError:
    return CheckpointError(
        "torch file is not a dict of names and tensors",
        got=found,
        at=path,
        expected="what torch.save(model.state_dict(), FILE) writes",
        do="save the state dict alone",
    )


class _Storages:
    """Finds where in the file the numbers of each storage begin."""

    def __init__(
        self,
        path: Place,
        file: IO[bytes],
        entries: dict[str, zipfile.ZipInfo],
        prefix: str,
        file_bytes: int,
    ) -> None:
        self._path, self._file, self._file_bytes = path, file, file_bytes
        self._entries, self._prefix = entries, prefix
        self._starts: dict[tuple[str, str, int], int] = {}

    def spec(self, name: str, tensor: StoredTensor) -> TensorSpec:
        """The tensor's place, its window checked against its storage."""
        storage = (tensor.key, tensor.dtype, tensor.storage_elements)
        start = self._starts.get(storage)
        if start is None:
            start = self._starts[storage] = self._storage_start(tensor)
        reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        count = reach + 1 if math.prod(tensor.shape) else 0
        if tensor.offset + count > tensor.storage_elements or (
            math.prod(tensor.shape) > tensor.storage_elements
        ):
            raise CheckpointError(
                "tensor reaches beyond its storage",
                got=f"{name}: shape {list(tensor.shape)}, strides {list(tensor.strides)}, offset "
                f"{tensor.offset}",
                at=self._path,
                expected=f"at most the {tensor.storage_elements:,} numbers of the storage",
                do=DOWNLOAD_AGAIN,
            )
        size = ITEM_BYTES[tensor.dtype]
        strides = None if _is_dense(tensor) else tensor.strides
        return TensorSpec(
            self._path, tensor.dtype, tensor.shape, start + tensor.offset * size, count * size,
            strides,
        )  # fmt: skip

    def _storage_start(self, tensor: StoredTensor) -> int:
        entry = self._entries.get(f"{self._prefix}data/{tensor.key}")
        if entry is None:
            raise _damaged(self._path, f"no storage data/{tensor.key[:80]}")
        wanted = tensor.storage_elements * ITEM_BYTES[tensor.dtype]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _damaged(self._path, f"storage {entry.filename[:80]} is compressed")
        if entry.file_size != wanted:
            raise _damaged(
                self._path, f"storage {entry.filename[:80]} of {entry.file_size:,} bytes, "
                f"{wanted:,} expected",
            )  # fmt: skip
        self._file.seek(entry.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise _damaged(self._path, f"no entry at byte {entry.header_offset:,}")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if start + wanted > self._file_bytes:
            raise _damaged(self._path, f"storage {entry.filename[:80]} ends after the file")
        return start


def _is_dense(tensor: StoredTensor) -> bool:
    step = 1
    for size, stride in zip(tensor.shape[::-1], tensor.strides[::-1], strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
