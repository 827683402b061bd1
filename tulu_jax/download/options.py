"""How to fetch, how to tell how far it is, and the ways in which it fails."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tulu_jax.errors import DataError


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """How files are fetched.

    `jobs` files at a time; each address is tried again `retries` times in a row (more often while
    it keeps getting on), after `backoff_s`, twice that, and so on up to `backoff_cap_s` seconds.
    `timeout_s` is how long a server may be silent, or slower than `min_rate` bytes a second.
    `mirror_root` is a folder or address with `<dataset>/<filename>`, tried before the published
    addresses. Archives may unpack to `max_ratio` times their size.
    """

    jobs: int = 4
    retries: int = 5
    timeout_s: float = 60.0
    min_rate: float = 500.0
    backoff_s: float = 1.0
    backoff_cap_s: float = 60.0
    mirror_root: str | None = None
    max_ratio: float = 250.0
    stop: threading.Event = field(default_factory=threading.Event)

    def check_stopped(self) -> None:
        """Passes unless `stop` was set.

        Raises: DataError when it was, to end a thread that fetches.
        """
        if self.stop.is_set():
            raise DataError("interrupted", do="run it again: it goes on where it stopped")


class Progress:
    """Hears how far each file is. This one says nothing; methods are called from many threads."""

    def update(self, name: str, done_bytes: int, total_bytes: int | None, stage: str) -> None:
        """So many bytes of `name` are done in this stage: fetching, checking or unpacking."""

    def note(self, name: str, text: str) -> None:
        """Something worth telling happened: a retry, a mirror that failed."""

    def finish(self, name: str) -> None:
        """`name` is done, well or not."""


class TryAgain(DataError):
    """One attempt failed; the same address may work after `wait_s` seconds."""

    wait_s: float = 0.0


class BadContent(DataError):
    """All bytes came, but they are damaged: they are thrown away and fetched anew, once."""


class GiveUp(DataError):
    """The address does not serve the file; another may."""


_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "over quota", errno.EFBIG: "file too large"}


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns what the operating system says about reading and writing in `folder` into words.

    Raises: DataError.
    """
    try:
        yield
    except OSError as error:
        full = _FULL.get(error.errno or 0)
        if full is not None:
            raise disk_full(folder, full) from error
        raise DataError(
            "cannot read or write",
            got=error.strerror or type(error).__name__,
            at=error.filename or folder,
            expected="a file that can be read, a folder that can be written",
        ) from error


def disk_full(folder: Path, got: str) -> DataError:
    """The error for a disk without room."""
    return DataError(
        "the disk is full",
        got=got,
        at=folder,
        do="free some space and run it again: what was fetched is kept, it goes on from there",
    )
