"""Large files written past the page cache.

A file written the usual way is copied into the page cache first, whose pages the kernel has to find
and clear: for weights that costs more processor time than anything done with them, and pushes out
of memory what other programs read. Here blocks of aligned memory go straight to the disk
(`O_DIRECT`), and a finished file is on it. Where a file system cannot do that, files are written
the usual way and flushed.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

ALIGNMENT = 4096
"""What addresses, lengths and places in the file are multiples of."""
STAGE_BYTES = 8 * 2**20
"""Memory in which pieces that are not aligned are collected."""
MAX_WRITE = 2**30
"""Bytes handed to the kernel at once; Linux takes less than 2^31."""


def aligned_empty(shape: tuple[int, ...] | list[int], dtype: np.dtype) -> np.ndarray:
    """An array like `np.empty`'s whose first byte is where direct writing wants it."""
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % ALIGNMENT
    return memory[skip : skip + num_bytes].view(dtype).reshape(shape)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of an array, uint8[n]; a view where it is dense."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def write_file(path: Path, array: np.ndarray) -> Path:
    """Writes the bytes of one array; `sync` puts what is not there yet on the disk."""
    with DirectFile(path, durable=False) as file:
        file.write(array)
    return path


def sync(path: Path) -> None:
    """Returns when a file is on the disk; for many files that is quicker when all are written."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class DirectFile:
    """A new file that takes arrays one after another; on the disk when the context has ended.

    Arrays that were written must not change until then. Nothing is kept open after an error.
    """

    def __init__(self, path: Path, *, checksum: bool = False, durable: bool = True) -> None:
        """Makes the file, or empties the one there is.

        Args:
          path: the file.
          checksum: whether to take its SHA-256, side by side with the writing.
          durable: whether to wait at the end until it is on the disk.
        """
        self._durable = durable
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            self._file = os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o644)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._file = os.open(path, flags, 0o644)
        self._digest = hashlib.sha256() if checksum else None
        self._workers = ThreadPoolExecutor(1) if checksum else None
        self._hashers = ThreadPoolExecutor(1) if checksum else None
        self._under_way: collections.deque[list[Future[Any]]] = collections.deque()
        self._stage = np.empty(0, np.uint8)
        self._staged = self._sent = 0

    @property
    def checksum(self) -> str:
        """The SHA-256 of everything written, in hex; known when the context has ended."""
        assert self._digest is not None
        return self._digest.hexdigest()

    def write(self, array: np.ndarray) -> None:
        """Appends the bytes of an array.

        Raises:
          OSError: the disk is full or fails; it may be told of a few writes later.
        """
        data = as_bytes(array)
        while data.size:
            if not self._staged and data.ctypes.data % ALIGNMENT == 0 and data.size >= ALIGNMENT:
                whole = data.size - data.size % ALIGNMENT
                self._send(data[:whole])
            else:
                whole = self._collect(data)
            data = data[whole:]

    def _collect(self, data: np.ndarray) -> int:
        """Takes the beginning of `data` into the stage; returns how many bytes."""
        if not self._staged:
            size = STAGE_BYTES if data.size % ALIGNMENT else min(STAGE_BYTES, data.size)
            self._stage = aligned_empty((size,), np.dtype(np.uint8))
        count = min(data.size, self._stage.size - self._staged)
        self._stage[self._staged : self._staged + count] = data[:count]
        self._staged += count
        if self._staged == self._stage.size:
            self._send(self._stage)
            self._staged = 0
        return count

    def _send(self, block: np.ndarray) -> None:
        """Hands aligned bytes to the writer and the hasher."""
        place, self._sent = self._sent, self._sent + block.size
        if self._workers is None or self._hashers is None or self._digest is None:
            self._write_block(block, place)
            return
        jobs = [
            self._workers.submit(self._write_block, block, place),
            self._hashers.submit(self._digest.update, block.data),
        ]
        self._under_way.append(jobs)
        while len(self._under_way) > 1:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        for job in self._under_way.popleft():
            job.result()

    def _write_block(self, block: np.ndarray, place: int) -> None:
        data = block.data
        while len(data):
            try:
                written = os.pwrite(self._file, data[:MAX_WRITE], place)
            except OSError as error:
                if error.errno != errno.EINVAL or not _stop_being_direct(self._file):
                    raise
                continue
            data, place = data[written:], place + written

    def _end(self) -> None:
        size = self._sent + self._staged
        if self._staged:
            if self._digest is not None and self._hashers is not None:
                last = self._stage[: self._staged].data
                self._under_way.append([self._hashers.submit(self._digest.update, last)])
            padded = -(-self._staged // ALIGNMENT) * ALIGNMENT
            self._stage[self._staged : padded] = 0
            self._write_block(self._stage[:padded], self._sent)
            os.ftruncate(self._file, size)
        while self._under_way:
            self._finish_oldest()
        if self._durable:
            os.fsync(self._file)

    def __enter__(self) -> DirectFile:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is left and closes."""
        try:
            if kind is None:
                self._end()
        finally:
            for pool in (self._workers, self._hashers):
                if pool is not None:
                    pool.shutdown(cancel_futures=True)
            os.close(self._file)


def _stop_being_direct(file: int) -> bool:
    """Whether the file was written past the page cache; from now on it is not."""
    flags, direct = fcntl.fcntl(file, fcntl.F_GETFL), getattr(os, "O_DIRECT", 0)
    fcntl.fcntl(file, fcntl.F_SETFL, flags & ~direct)
    return bool(flags & direct)
