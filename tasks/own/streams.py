"""A user's file as a stream of the text in it: unpacked, and known not to be something else."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from tasks.json_window import OWN, empty_file
from tasks.raw_files import open_file
from tulu_jax.errors import DataError
from tulu_jax.files import HEAD_BYTES, kind_of

GZIP, ZSTD, PARQUET = (kind_of(start) for start in (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"))
_NO_FILE = kind_of(b"")
_PIECE, _PACKED_PIECE = 1 << 20, 1 << 12

_MEND = {
    "UTF-16 text": "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW",
    kind_of(b"version https://git-lfs.github.com/"): "fetch the file itself: git lfs pull",
    kind_of(b"<html>"): "it is what a server sent in place of the file: get the file itself",
    kind_of(b"ARROW1"): "write it as Parquet: dataset.to_parquet(NAME)",
}


def kind_of_own(path: Path) -> str | None:
    """What a file is by its first bytes, in words; None for text that may be one of ours.

    Raises: DataError when it cannot be read, or is empty.
    """
    with open_file(path) as stream:
        kind = _kind(stream.read(HEAD_BYTES))
    if kind == _NO_FILE:
        raise empty_file(path, OWN)
    return kind


def open_text(path: Path) -> BinaryIO:
    """The text of the file, as bytes; what is packed with gzip or zstd is unpacked on the way.

    Raises: DataError for a file that is neither text nor so packed, now or, when it is cut off or
        damaged, while it is read.
    """
    kind = kind_of_own(path)
    unpack = {GZIP: _gunzip, ZSTD: _Zstd}.get(kind)
    if unpack is None:
        _refuse(kind, path)
        return open_file(path)
    packed = open_file(path)
    stream = cast(BinaryIO, io.BufferedReader(_Unpacked(unpack(packed), packed, path), _PIECE))
    try:
        inside = _kind(cast(Any, stream).peek(HEAD_BYTES)[:HEAD_BYTES])
        if inside == _NO_FILE:
            raise empty_file(path, OWN)
        _refuse(inside, path, inside=f", in {kind}")
    except DataError:
        stream.close()
        raise
    return stream


def _kind(head: bytes) -> str | None:
    """`kind_of`, which also knows UTF-16 without a byte order mark, of letters that ASCII has."""
    pairs = {
        (not first, not second) for first, second in zip(head[:16:2], head[1:16:2], strict=False)
    }
    if len(head) > 3 and pairs in ({(True, False)}, {(False, True)}):
        return "UTF-16 text"
    return kind_of(head)


def _refuse(kind: str | None, path: Path, inside: str = "") -> None:
    if kind is None or kind == "a tiktoken vocabulary":  # which is text: its lines are faults
        return
    raise DataError(
        "file holds no conversations that can be read",
        got=kind + inside,
        at=path,
        expected="JSON, JSON lines, CSV or TSV in UTF-8, each also packed with gzip or zstd; "
        "or Parquet",
        do="save the sheet as CSV"
        if path.suffix.lower() == ".xlsx"
        else _MEND.get(kind, "unpack or convert it"),
    )


def _gunzip(packed: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=packed)


class _Zstd:
    """What is packed in a zstd file, of one frame or more; unlike the package's own reader it
    notices an end that comes too early.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._frame = packed, _new_frame()
        self._fresh = True

    def read(self, size: int) -> bytes:
        """The next bytes, about as many as `size`; none at the end."""
        while True:
            rest = self._frame.unused_data if self._frame.eof else b""
            raw = rest or self._packed.read(min(size, _PACKED_PIECE))
            if not raw:
                if not (self._frame.eof or self._fresh):
                    raise EOFError("it ends within a frame")
                return b""
            if self._frame.eof:
                self._frame = _new_frame()
            self._fresh = False
            if made := self._frame.decompress(raw):
                return made


def _new_frame() -> Any:
    return zstandard.ZstdDecompressor().decompressobj()


class _Unpacked(io.RawIOBase):
    """A raw stream of what is packed in a file, whose faults are ours."""

    def __init__(self, source: Any, packed: BinaryIO, path: Path) -> None:
        self._read: Callable[[int], bytes] = source.read
        self._packed, self._path, self._left = packed, path, b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as it goes; 0 at the end.

        Raises: DataError for a file that is damaged or cut off.
        """
        size = len(buffer)
        if not self._left:
            try:
                self._left = self._read(size)
            except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
                raise DataError(
                    "packed file is damaged or cut off",
                    got=str(error)[:100],
                    at=self._path,
                    do="pack or copy it again",
                ) from error
        some, self._left = self._left[:size], self._left[size:]
        buffer[: len(some)] = some
        return len(some)

    def close(self) -> None:
        """Closes the file."""
        self._packed.close()
        super().close()
