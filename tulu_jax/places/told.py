"""Errors of storages, as ours."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from typing import Any

from tulu_jax.places.address import Address
from tulu_jax.places.errors import StorageError, storage_error


@contextlib.contextmanager
def told(deed: str, at: Address) -> Iterator[None]:
    """Turns whatever a storage's library raises inside into a StorageError.

    FileNotFoundError and FileExistsError pass.
    """
    begun = time.monotonic()
    try:
        yield
    except (FileNotFoundError, FileExistsError, StorageError):
        raise
    except Exception as error:
        seconds = time.monotonic() - begun
        raise storage_error(error, deed=deed, at=at, seconds=seconds) from error


class Stream(io.RawIOBase):
    """A file of a storage's library to write to; what it raises comes out as ours."""

    def __init__(self, inner: Any, address: Address) -> None:
        """Closes nothing: that is for whoever opened it."""
        self._inner, self._address = inner, address

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Takes all of the bytes.

        Raises: StorageError.
        """
        view = memoryview(data).cast("B")
        with told("write", self._address):
            self._inner.write(view)
        return view.nbytes
