"""The tokenized store: a folder from which any example's tokens and loss mask are read at random.

    <folder>/tokens.array_record   one record an example
    <folder>/index.npz             lengths, loss tokens, ids
    <folder>/meta.json             what is in it and how it was made; sizes and checksums
    <folder>/.verified             sizes and times of the files when their checksums were right

`meta.json` is written last, in a temporary folder that is then renamed: a folder without it is
not a store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Int

from tulu_jax.data.store_format import (
    FORMAT_VERSION,
    INDEX_FILE,
    META_FILE,
    READER_OPTIONS,
    TOKENS_FILE,
    WRITER_OPTIONS,
    Block,
    Example,
    Gathered,
    corrupt,
    decode_records,
    make_block,
    record_ends,
    split_ids,
    token_dtype,
    unwritable,
)
from tulu_jax.errors import DataError
from tulu_jax.files import disk_error, file_sha256, json_or_none, write_whole

__all__ = ["Example", "Gathered", "Store", "open_store", "write_blocks", "write_store"]

STAMP_FILE = ".verified"
_BLOCK_EXAMPLES = 1024


def write_store(path: str | Path, examples: Iterable[Example], *, meta: dict[str, Any]) -> Store:
    """The store at `path`, written whole or not at all, holding `examples` in order.

    `meta` must name `vocab_size`; it is kept as given, with format, counts and checksums added.
    `meta` is read after the last example, so counts may be filled in while examples are made.

    Raises: DataError when the folder cannot be written or the disk is full.
    """
    iterator = iter(examples)

    def blocks() -> Iterator[Block]:
        while some := list(islice(iterator, _BLOCK_EXAMPLES)):
            yield make_block(some, meta["vocab_size"])

    return write_blocks(path, blocks(), meta=meta)


def write_blocks(path: str | Path, blocks: Iterable[Block], *, meta: dict[str, Any]) -> Store:
    """As `write_store`, of examples that are encoded already.

    The files depend on the examples and `meta` alone, not on how examples are cut into blocks.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        prefix = f".{path.name}.partial-{socket.gethostname()}-{os.getpid()}-"
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        _write_files(work, blocks, meta)
        _publish(work, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_store(path)


def open_store(path: str | Path, *, verify: bool | None = None) -> Store:
    """The store at `path`, its files compared with the sizes and checksums in its meta.

    Checksums are compared unless the files are, by size and time, those whose checksums were
    right before; `verify=True` compares them all the same, False does not. A byte that changes
    after that is noticed when its record is read.

    Raises: DataError when there is no store, it is half-written, truncated or corrupt, or was
        written by another format version.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(
            "no tokenized store",
            at=path,
            do="run `tulu data prepare` with the same tokenizer, template, length and options",
        )
    meta = _read_meta(path)
    for name, facts in meta["files"].items():
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != facts["bytes"]:
            got = f"{'no file' if size is None else f'{size:,} bytes'}"
            raise corrupt(path / name, got, f"{facts['bytes']:,} bytes")
    if verify is None:
        verify = not _is_stamped(path, meta)
    if verify:
        for name, facts in meta["files"].items():
            if file_sha256(path / name) != facts["sha256"]:
                expected = f"sha256 {facts['sha256'][:12]}..."
                raise corrupt(path / name, "another checksum", expected)
        with contextlib.suppress(OSError):  # a store may lie where nothing can be written
            _write_stamp(path, meta)
    return Store(path, meta)


def _stamp(path: Path, meta: dict[str, Any]) -> dict[str, list[Any]]:
    """What says that the files are still those whose checksums were compared."""
    stats = {name: (path / name).stat() for name in meta["files"]}
    return {
        name: [meta["files"][name]["sha256"], stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        for name, stat in stats.items()
    }


def _is_stamped(path: Path, meta: dict[str, Any]) -> bool:
    return json_or_none(path / STAMP_FILE) == _stamp(path, meta)


def _write_stamp(path: Path, meta: dict[str, Any]) -> None:
    write_whole(path / STAMP_FILE, json.dumps(_stamp(path, meta)))


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
        return split_ids(self._id_bytes, self._id_ends)

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
        try:
            records = self._reader().read(indices.tolist()) if len(indices) else []
        except (RuntimeError, ValueError) as error:  # ArrayRecord's checksums do not fit
            raise corrupt(self.path / TOKENS_FILE, str(error), "whole records") from error
        words = np.frombuffer(b"".join(records), dtype=self._dtype)
        return decode_records(words, self.lengths[indices])

    def _reader(self) -> ArrayRecordReader:
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = ArrayRecordReader(str(self.path / TOKENS_FILE), READER_OPTIONS)
            self._local.reader = reader
        return reader

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_local"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()


def _write_files(work: Path, blocks: Iterable[Block], meta: dict[str, Any]) -> None:
    dtype = token_dtype(meta["vocab_size"])
    index: list[Block] = []
    writer = ArrayRecordWriter(str(work / TOKENS_FILE), WRITER_OPTIONS)
    try:
        for block in blocks:
            records, start = block.records.tobytes(), 0
            for end in record_ends(block.lengths, dtype).tolist():
                _write_record(writer, records[start:end], work)
                start = end
            index.append(dataclasses.replace(block, records=block.records[:0].copy()))
    finally:
        _close(writer, work)
    lengths, loss_tokens, id_bytes, id_ends = _join_index(index)
    np.savez(
        work / INDEX_FILE,
        lengths=lengths,
        loss_tokens=loss_tokens,
        id_bytes=id_bytes,
        id_ends=id_ends,
    )
    _check_written(work / TOKENS_FILE, len(lengths))
    full = {
        "format": FORMAT_VERSION,
        **meta,
        "examples": len(lengths),
        "tokens": int(lengths.sum(dtype=np.int64)),
        "loss_tokens": int(loss_tokens.sum(dtype=np.int64)),
        "token_dtype": dtype.str,
        "files": {
            name: {"bytes": (work / name).stat().st_size, "sha256": file_sha256(work / name)}
            for name in (TOKENS_FILE, INDEX_FILE)
        },
    }
    _write_stamp(work, full)
    write_whole(work / META_FILE, json.dumps(full, indent=1), durable=True)


def _join_index(blocks: list[Block]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lengths, loss tokens, ids and ends of the ids of all blocks."""
    nothing = make_block([], 1)
    blocks = blocks or [nothing]
    shifts = np.cumsum([0] + [len(block.id_bytes) for block in blocks[:-1]], dtype=np.int64)
    ends = [block.id_ends + shift for block, shift in zip(blocks, shifts, strict=True)]
    return (
        np.concatenate([block.lengths for block in blocks]),
        np.concatenate([block.loss_tokens for block in blocks]),
        np.concatenate([block.id_bytes for block in blocks]),
        np.concatenate(ends),
    )


def _write_record(writer: ArrayRecordWriter, record: bytes, work: Path) -> None:
    try:
        writer.write(record)
    except (RuntimeError, ValueError) as error:  # ArrayRecord reports a full disk this way
        raise disk_error(error) or OSError(None, str(error), str(work)) from error


def _close(writer: ArrayRecordWriter, work: Path) -> None:
    try:
        writer.close()
    except (RuntimeError, ValueError) as error:
        raise disk_error(error) or OSError(None, str(error), str(work)) from error


def _check_written(path: Path, expected: int) -> None:
    try:
        found = ArrayRecordReader(str(path), READER_OPTIONS).num_records() if expected else 0
    except (RuntimeError, ValueError) as error:
        raise disk_error(error) or OSError(None, str(error), str(path)) from error
    if found != expected:
        raise OSError(None, f"{found} of {expected} records were written", str(path))


def _publish(work: Path, path: Path) -> None:
    """Renames the finished folder; what lay there before is replaced unless it is the same."""
    os.chmod(work, 0o755)
    if path.exists():
        try:
            there, made = open_store(path).meta, _read_meta(work)
            if all(there.get(name) == made.get(name) for name in ("files", "key")):
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
        raise corrupt(path / META_FILE, "unreadable JSON", "a store's meta data") from error
    if version != FORMAT_VERSION or not isinstance(files, dict):
        raise DataError(
            "store of another format",
            got=version,
            at=path,
            expected=FORMAT_VERSION,
            do="delete the folder and run `tulu data prepare` again",
        )
    return meta
