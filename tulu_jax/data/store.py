"""The tokenized store: a folder from which any example's tokens and loss mask are read at random.

    <folder>/tokens.array_record   one record an example
    <folder>/index.npz             lengths, loss tokens, ids
    <folder>/meta.json             what is in it and how it was made; sizes and checksums

A record is the tokens as little-endian uint16 (uint32 when the vocabulary needs it), then the
mask, one bit a token, filled up to a whole word. `meta.json` is written last, in a temporary
folder that is then renamed: a folder without it is not a store.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Bool, Int

from tulu_jax.data.specs import file_sha256
from tulu_jax.errors import DataError

FORMAT_VERSION = 1
TOKENS_FILE, INDEX_FILE, META_FILE = "tokens.array_record", "index.npz", "meta.json"
_WRITER_OPTIONS = "group_size:16,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"


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


def write_store(path: str | Path, examples: Iterable[Example], *, meta: dict[str, Any]) -> Store:
    """The store at `path`, written whole or not at all, holding `examples` in order.

    `meta` must name `vocab_size`; it is kept as given, with format, counts and checksums added.
    `meta` is read after the last example, so counts may be filled in while examples are made.

    Raises: DataError when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        prefix = f".{path.name}.partial-{socket.gethostname()}-{os.getpid()}-"
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        _write_files(work, examples, meta)
        _publish(work, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_store(path)


def open_store(path: str | Path, *, verify: bool = True) -> Store:
    """The store at `path`, its files compared with the sizes and (`verify`) checksums in its meta.

    Raises: DataError when there is no store, it is half-written, truncated or corrupt, or was
        written by another format version.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError("no tokenized store", at=path, do="run `tulu data prepare`")
    meta = _read_meta(path)
    for name, facts in meta["files"].items():
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != facts["bytes"]:
            got = f"{'no file' if size is None else f'{size:,} bytes'}"
            raise _corrupt(path / name, got, f"{facts['bytes']:,} bytes")
        if verify and file_sha256(path / name) != facts["sha256"]:
            raise _corrupt(path / name, "another checksum", f"sha256 {facts['sha256'][:12]}...")
    return Store(path, meta)


class Store:
    """A tokenized dataset, opened for random access. Reading is safe from several threads."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        """Use `open_store`, which checks the files first."""
        self.path = path
        self.meta = meta
        with np.load(path / INDEX_FILE, allow_pickle=False) as index:
            self.lengths: np.ndarray = index["lengths"]
            self.loss_tokens: np.ndarray = index["loss_tokens"]
            self._id_bytes: bytes = index["id_bytes"].tobytes()
            self._id_ends: np.ndarray = index["id_ends"]
        self._dtype = np.dtype(meta["token_dtype"])
        self._local = threading.local()

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.lengths)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the token file: equal when tokens, masks and their order are."""
        return self.meta["files"][TOKENS_FILE]["sha256"]

    @property
    def name(self) -> str:
        """The task whose examples these are."""
        return self.meta.get("task", self.path.parent.name)

    @property
    def ids(self) -> list[str]:
        """The examples' ids, in order."""
        ends = self._id_ends.tolist()
        starts = [0, *ends[:-1]]
        return [self._id_bytes[a:b].decode() for a, b in zip(starts, ends, strict=True)]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One example: tokens int32[n] and loss mask bool[n]."""
        got = self.gather(np.array([index]))
        return got.tokens, got.loss_mask

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All examples in order."""
        return (self[i] for i in range(len(self)))

    def gather(self, indices: Int[np.ndarray, "examples"]) -> Gathered:
        """The named examples, read in one go and decoded together."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"example index outside 0..{len(self) - 1} in {self.path}")
        records = self._reader().read(indices.tolist()) if len(indices) else []
        words = np.frombuffer(b"".join(records), dtype=self._dtype)
        return _decode(words, self.lengths[indices])

    def _reader(self) -> ArrayRecordReader:
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = ArrayRecordReader(str(self.path / TOKENS_FILE), _READER_OPTIONS)
            self._local.reader = reader
        return reader

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_local"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()


def _encode(tokens: np.ndarray, loss_mask: np.ndarray, dtype: np.dtype) -> bytes:
    bits = np.packbits(np.asarray(loss_mask, dtype=bool), bitorder="little").tobytes()
    fill = -len(bits) % dtype.itemsize
    return np.asarray(tokens).astype(dtype).tobytes() + bits + b"\0" * fill


def _decode(words: np.ndarray, lengths: np.ndarray) -> Gathered:
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


def _write_files(work: Path, examples: Iterable[Example], meta: dict[str, Any]) -> None:
    dtype = np.dtype("<u2" if meta["vocab_size"] <= 1 << 16 else "<u4")
    lengths, loss_tokens, ids = [], [], []
    writer = ArrayRecordWriter(str(work / TOKENS_FILE), _WRITER_OPTIONS)
    try:
        for example in examples:
            _check_example(example, meta["vocab_size"])
            _write_record(writer, _encode(example.tokens, example.loss_mask, dtype), work)
            lengths.append(len(example.tokens))
            loss_tokens.append(int(np.count_nonzero(example.loss_mask)))
            ids.append(example.id.encode())
    finally:
        _close(writer, work)
    np.savez(
        work / INDEX_FILE,
        lengths=np.array(lengths, dtype=np.int32),
        loss_tokens=np.array(loss_tokens, dtype=np.int32),
        id_bytes=np.frombuffer(b"".join(ids), dtype=np.uint8),
        id_ends=np.cumsum([len(i) for i in ids], dtype=np.int64),
    )
    _check_written(work / TOKENS_FILE, len(lengths))
    files = {
        name: {"bytes": (work / name).stat().st_size, "sha256": file_sha256(work / name)}
        for name in (TOKENS_FILE, INDEX_FILE)
    }
    full = {
        "format": FORMAT_VERSION,
        **meta,
        "examples": len(lengths),
        "tokens": sum(lengths),
        "loss_tokens": sum(loss_tokens),
        "token_dtype": dtype.str,
        "files": files,
    }
    with open(work / META_FILE, "w", encoding="utf-8") as stream:
        json.dump(full, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


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


def _write_record(writer: ArrayRecordWriter, record: bytes, work: Path) -> None:
    try:
        writer.write(record)
    except (RuntimeError, ValueError) as error:  # ArrayRecord reports a full disk this way
        raise OSError(None, str(error), str(work)) from error


def _close(writer: ArrayRecordWriter, work: Path) -> None:
    try:
        writer.close()
    except (RuntimeError, ValueError) as error:
        raise OSError(None, str(error), str(work)) from error


def _check_written(path: Path, expected: int) -> None:
    try:
        found = ArrayRecordReader(str(path), _READER_OPTIONS).num_records() if expected else 0
    except (RuntimeError, ValueError) as error:
        raise OSError(None, str(error), str(path)) from error
    if found != expected:
        raise OSError(None, f"{found} of {expected} records were written", str(path))


def _publish(work: Path, path: Path) -> None:
    """Renames the finished folder; what lay there before is replaced unless it is the same."""
    os.chmod(work, 0o755)
    if path.exists():
        try:
            if open_store(path).meta["files"] == _read_meta(work)["files"]:
                return  # another process was faster
        except DataError:
            pass  # half-written or broken
        shutil.rmtree(path)
    os.replace(work, path)


def _remove_leftovers(path: Path) -> None:
    """Deletes temporary folders of writers on this machine that no longer run."""
    prefix = f".{path.name}.partial-{socket.gethostname()}-"
    for folder in path.parent.glob(f"{prefix}*"):
        writer = folder.name.removeprefix(prefix).split("-")[0]
        if not _runs(int(writer)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads((path / META_FILE).read_text(encoding="utf-8"))
        files = meta["files"]
        version = meta["format"]
    except FileNotFoundError as error:
        raise DataError(
            "half-written store",
            got=f"no {META_FILE}",
            at=path,
            do="delete the folder and run `tulu data prepare` again",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(path / META_FILE, "unreadable JSON", "a store's meta data") from error
    if version != FORMAT_VERSION or not isinstance(files, dict):
        raise DataError(
            "store of another format",
            got=version,
            at=path,
            expected=FORMAT_VERSION,
            do="delete the folder and run `tulu data prepare` again",
        )
    return meta


def _corrupt(path: Path, got: str, expected: str) -> DataError:
    return DataError(
        "store is truncated or corrupt",
        got=got,
        at=path,
        expected=expected,
        do="delete the folder and run `tulu data prepare` again",
    )


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        "cannot write the store",
        got=error.strerror or str(error),
        at=path,
        do="free some space or choose another folder with --data_dir",
    )
