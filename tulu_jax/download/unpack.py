"""Taking files out of an archive as a stream, and refusing archives that mean harm.

Names that leave the folder, links, and archives that unpack to far more than their size are
refused; nothing is written outside the folder that the caller gives.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tulu_jax.download.options import BadContent, GiveUp

MAX_FILES = 1_000_000
_FLOOR_BYTES = 1 << 24
_BLOCK_BYTES = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    UnicodeError,
    ValueError,
    IndexError,
    OverflowError,
)


@dataclass(frozen=True)
class Entry:
    """One thing in an archive; `kind` is file, folder, or other (a link, a device)."""

    name: str
    kind: str
    open: Callable[[], IO[bytes]]


class UnpackLimit:
    """How much an archive may unpack to: `max_ratio` times its size, but 16 MiB at least."""

    def __init__(self, archive_bytes: int, max_ratio: float, *, at: str) -> None:
        """Nothing unpacked yet."""
        self._limit = max(_FLOOR_BYTES, int(archive_bytes * max_ratio))
        self._ratio, self._at = max_ratio, at
        self.done = 0
        self.files = 0

    def spend(self, count: int) -> None:
        """Counts bytes that are about to be written.

        Raises: GiveUp when they are too many.
        """
        self.done += count
        if self.done > self._limit or self.files > MAX_FILES:
            raise GiveUp(
                "the archive unpacks to far more than it should (a zip bomb?)",
                got=f"over {self.done:,} bytes in {self.files:,} files",
                at=self._at,
                expected=f"at most {self._ratio:g} times its size, {MAX_FILES:,} files",
            )


def unpack(
    archive: Path,
    packed: str,
    targets: Sequence[tuple[str | None, Path]],
    *,
    at: str,
    max_ratio: float = 250.0,
    tick: Callable[[int], None] = lambda done: None,
) -> None:
    """Writes each member (file or folder) of `targets` to the path beside it, which is new.

    The member None is the only file of an archive, or else all of it. `tick` hears how many bytes
    were written.

    Raises: BadContent for a damaged archive; GiveUp for a hostile one, or a member it lacks.
    """
    limit = UnpackLimit(archive.stat().st_size, max_ratio, at=at)
    try:
        if packed == "gz":
            with gzip.open(archive) as stream:
                for _, target in targets:
                    stream.seek(0)
                    _copy(stream, target, limit, tick)
            return
        _unpack_tree(archive, packed, targets, limit, tick, at=at)
    except GiveUp:
        raise
    except (NotImplementedError, RuntimeError) as error:
        raise GiveUp("the archive cannot be unpacked", got=error, at=at) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise GiveUp("the archive holds a name twice", got=error.filename, at=at) from error
    except _DAMAGED as error:
        raise BadContent("the archive is damaged", got=_words(error), at=at) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a seek to where the archive says
            raise
        raise BadContent("the archive is damaged", got=_words(error), at=at) from error


def _unpack_tree(
    archive: Path,
    packed: str,
    targets: Sequence[tuple[str | None, Path]],
    limit: UnpackLimit,
    tick: Callable[[int], None],
    *,
    at: str,
) -> None:
    wanted = [(_only_file(archive, packed) if m is None else m, p) for m, p in targets]
    found: set[str] = set()
    for entry in _entries(archive, packed):
        path = _safe(entry.name, at=at)
        for member, target in wanted:
            below = _below(path, member)
            if below is None:
                continue
            found.add(member)
            out = target / below
            if entry.kind == "other":
                raise GiveUp("the archive holds a link or device", got=repr(entry.name), at=at)
            if entry.kind == "folder":
                out.mkdir(parents=True, exist_ok=True)
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as stream:
                _copy(stream, out, limit, tick)
    for member, _ in wanted:
        if member not in found:
            raise GiveUp(
                "the archive does not hold what is wanted",
                got=f"no {member or 'file'} among {_some_names(archive, packed)}",
                at=at,
            )


def _copy(
    stream: IO[bytes] | gzip.GzipFile, target: Path, limit: UnpackLimit, tick: Callable[[int], None]
) -> None:
    limit.files += 1
    with open(target, "xb") as out:
        while block := stream.read(_BLOCK_BYTES):
            limit.spend(len(block))
            out.write(block)
            tick(limit.done)


def _entries(archive: Path, packed: str) -> Iterator[Entry]:
    if packed == "zip":
        with zipfile.ZipFile(archive) as box:
            for info in box.infolist():
                # Python cuts a name at NUL: check the name as it stands in the archive
                name = getattr(info, "orig_filename", info.filename)
                yield Entry(name, _zip_kind(info), lambda info=info: box.open(info))
        return
    with tarfile.open(archive, "r:*") as box:
        for info in box:
            kind = "file" if info.isfile() else "folder" if info.isdir() else "other"
            yield Entry(info.name, kind, lambda info=info: _tar_stream(box, info))


def _tar_stream(box: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = box.extractfile(info)
    if stream is None:
        raise tarfile.ReadError(f"no content for {info.name}")
    return stream


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "other"
    return "folder" if info.is_dir() else "file"


def _only_file(archive: Path, packed: str) -> str:
    """The name of the archive's only file; the empty name, which holds all, if there are more."""
    files = [entry.name for entry in _entries(archive, packed) if entry.kind != "folder"]
    return files[0] if len(files) == 1 else ""


def _safe(name: str, *, at: str) -> PurePosixPath:
    """The name as a path; refused when it is absolute, leaves the folder, or is not a plain one."""
    path = PurePosixPath(name)
    drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or drive:
        raise GiveUp("the archive holds a name that leaves its folder", got=repr(name), at=at)
    return path


def _below(path: PurePosixPath, member: str) -> PurePosixPath | None:
    """The path from the member on; None when it is not part of the member.

    >>> _below(PurePosixPath("a/tasks/1.json"), "a/tasks")
    PurePosixPath('1.json')
    """
    try:
        return path.relative_to(PurePosixPath(member))
    except ValueError:
        return None


def _some_names(archive: Path, packed: str) -> str:
    names = []
    for entry in _entries(archive, packed):
        names.append(entry.name)
        if len(names) > 5:
            return ", ".join(names[:5]) + ", ..."
    return ", ".join(names) or "nothing: it is empty"


def _words(error: BaseException) -> str:
    first, *_ = str(error).splitlines() or [type(error).__name__]
    return first.rstrip(":")
