"""Files that have their name when they are whole, wherever they lie."""

from __future__ import annotations

import contextlib
import errno
import platform
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tulu_jax.files import whole_file, write_whole
from tulu_jax.places.address import Address, Place
from tulu_jax.places.backend import storage
from tulu_jax.places.errors import StorageError

THREADS = 16
"""Requests of small objects that are under way at once."""


@contextlib.contextmanager
def writing(place: Place) -> Iterator[IO[bytes]]:
    """A file to write bytes to, streamed; it has its name once the block has ended.

    After an error inside, nothing of it is there, and what lay under the name before still is.

    Raises: OSError, of which StorageError is one.
    """
    if isinstance(place, Address):
        with storage(place).writing(place) as stream:
            yield stream
        return
    with whole_file(place, "wb") as stream:
        yield stream


def write_file(place: Place, content: str | bytes) -> None:
    """Writes a file of this content: at any moment it is the old one or the new one.

    Raises: OSError, of which StorageError is one.
    """
    if isinstance(place, Address):
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        write_whole(place, content)


def check_writable(folder: Place) -> None:
    """Refuses a folder in which this user may not write and remove, by doing both.

    For before work that takes long and whose result would then be lost.

    Raises: StorageError, also where the name is that of an object.
    """
    if folder.is_file():
        raise StorageError(
            "a folder is wanted where an object lies",
            code=errno.ENOTDIR,
            got=f"an object of {folder.stat().st_size:,} bytes",
            at=folder,
            do="choose another name",
        )
    # One name a host: what a kill leaves is written over and removed by the next check.
    probe = folder / f".writable-{platform.node()}"
    write_file(probe, b"")
    probe.unlink(missing_ok=True)


def upload(file: Path, address: Address) -> None:
    """Copies a file of this machine to an address, whole or not at all.

    Raises: OSError, of which StorageError is one.
    """
    with file.open("rb") as source, writing(address) as target:
        shutil.copyfileobj(source, target, 2**20)


def create(address: Address, content: str | bytes) -> bool:
    """Writes an object unless there is one; whether the object there is now this content.

    Of several that come at once with contents of their own, one is told True. Where the answer to
    a request was lost and it was sent again, the second finds the first's object: so what is there
    is compared.

    Raises: StorageError.
    """
    content = content.encode() if isinstance(content, str) else content
    if storage(address).create(address, content):
        return True
    with contextlib.suppress(FileNotFoundError):
        return address.read_bytes() == content
    return False


def remove_tree(place: Place, *, first: tuple[str, ...] = ()) -> None:
    """Removes a folder and all below it; what is not there is no error.

    Args:
      place: the folder.
      first: names below it that go before the rest: those that say that it is whole.

    Raises: OSError, of which StorageError is one.
    """
    if not isinstance(place, Address):
        shutil.rmtree(place, ignore_errors=True)
        return
    for name in first:
        (place / name).unlink(missing_ok=True)
    with ThreadPoolExecutor(THREADS) as pool:
        files = [place / name for name in place.files()]
        list(pool.map(lambda file: file.unlink(missing_ok=True), files))


def move_tree(source: Address, target: Address, *, first: tuple[str, ...] = ()) -> None:
    """Moves a folder within a bucket, an object at a time: others see it half-way.

    Args:
      source: the folder.
      target: its new name.
      first: names below it that go before the rest: those that say that it is whole.

    Raises: StorageError.
    """
    at = storage(source)

    def move(name: str) -> None:
        at.copy(source / name, target / name)
        (source / name).unlink(missing_ok=True)

    names = list(source.files())
    for name in first:
        if name in names:
            move(name)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(move, [name for name in names if name not in first]))
