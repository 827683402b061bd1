"""A dataset's folder: locks against a second download, and the record of what was fetched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tulu_jax.download.content import check_head
from tulu_jax.download.options import FetchOptions
from tulu_jax.download.sources import CHECKSUMS, WORK, Source
from tulu_jax.errors import DataError
from tulu_jax.files import HEAD_BYTES, file_sha256
from tulu_jax.processes import try_lock

_POLL_S = 0.1


class RawFolder:
    """The folder `<raw_root>/<dataset>`."""

    def __init__(self, folder: Path) -> None:
        """The folder need not exist."""
        self.folder = folder
        self.work = folder / WORK
        self._record_path = folder / CHECKSUMS

    def record(self) -> dict[str, dict[str, Any]]:
        """What was fetched into the folder, by file name.

        Raises: DataError when the record cannot be read.
        """
        if not self._record_path.exists():
            return {}
        try:
            found = json.loads(self._record_path.read_text(encoding="utf-8"))
            return {name: {"sha256": found[name]["sha256"], **found[name]} for name in found}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(
                "the record of what was fetched is damaged",
                got=type(error).__name__,
                at=self._record_path,
                do="delete it: files that are there are kept, but no longer checked",
            ) from error

    def add_record(self, filename: str, entry: dict[str, Any], options: FetchOptions) -> None:
        """Writes down what was fetched, keeping what others wrote."""
        with self.lock("record", options):
            entries = {**self.record(), filename: entry}
            text = json.dumps(dict(sorted(entries.items())), indent=1, ensure_ascii=False)
            temporary = self.work / "record.tmp"
            temporary.write_text(text + "\n", encoding="utf-8")
            self.move_in(temporary, CHECKSUMS)

    def move_in(self, path: Path, filename: str) -> None:
        """Gives a whole file or folder its name, its bytes being on the disk."""
        if path.is_file():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
        target = self.folder / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)

    @contextlib.contextmanager
    def lock(
        self, name: str, options: FetchOptions, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Holds the lock `name`, which no other thread or process holds meanwhile.

        It is the operating system's lock of a file, so that a killed process holds none.
        `waiting` is called once if somebody else has it.
        """
        path = self.work / f"{name}.lock"
        with contextlib.ExitStack() as held:
            while True:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    stream = held.enter_context(open(path, "a"))
                except FileNotFoundError:  # whoever finished last removed the folder just now
                    continue
                if not _lock_now(stream.fileno()):
                    waiting()
                    while not _lock_now(stream.fileno()):
                        options.check_stopped()
                        time.sleep(_POLL_S)
                if os.fstat(stream.fileno()).st_nlink:  # else whoever held it removed it
                    break
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def tidy(self, options: FetchOptions) -> None:
        """Removes the folder of unfinished downloads if nothing is left in it, and its parent."""
        if self.work.exists():
            with contextlib.suppress(OSError, DataError), self.lock("record", options):
                pass  # a lock file that a killed process left is removed with the lock
            with contextlib.suppress(OSError):
                self.work.rmdir()
                self.folder.rmdir()

    def check_present(self, source: Source) -> tuple[str, int]:
        """How sure it is that a file (or folder) is the right one, and its bytes.

        Raises: DataError when it is not what was fetched, or what is published.
        """
        path = self.folder / source.filename
        entry = self.record().get(source.filename)
        published = source.sha256 if source.packed is None else None
        expected = entry["sha256"] if entry else published
        if expected is None:
            if path.is_file():
                with open(path, "rb") as stream:
                    check_head(stream.read(HEAD_BYTES), source.filename, at=str(path))
            return "there, not checked", _bytes(path)
        found, size = content_sha256(path)
        if found != expected:
            raise DataError(
                "a raw file is not what was fetched"
                if entry
                else "a raw file is not the right one",
                got=f"sha256 {found}",
                at=path,
                expected=expected,
                do="delete it to fetch it again"
                + (f", or its entry in {CHECKSUMS} to keep it as it is" if entry else ""),
            )
        return "there, verified", size


def content_sha256(path: Path) -> tuple[str, int]:
    """sha256 (hex) of a file, or over names and contents of a folder's files; and the bytes."""
    if not path.is_dir():
        return file_sha256(path), _bytes(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest(), _bytes(path)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _lock_now(descriptor: int) -> bool:
    """Whether the lock could be had at once.

    Raises: DataError where files have no locks: two processes would write one file.
    """
    held = try_lock(descriptor)
    if held is None:
        raise DataError(
            "the file system has no locks",
            expected="one with flock, such as a local disk",
            do="choose another folder with --raw_dir",
        )
    return held
