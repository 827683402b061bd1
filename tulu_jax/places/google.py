"""What Google's storage does, by gcsfs and TensorStore."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from typing import IO, Any

from tulu_jax.places.address import Address, missing, settle
from tulu_jax.places.errors import no_bucket
from tulu_jax.places.kvstores import bucket_store
from tulu_jax.places.told import Stream, told

BLOCK_BYTES = 16 * 2**20
"""Bytes of a streamed file that are sent at a time."""


@functools.cache
def google() -> Google:
    """The one for gs:// of this process."""
    return Google()


class Google:
    """Google's storage, by gcsfs: it tries six times, for about 35 s.

    Every method raises StorageError.
    """

    def __init__(self) -> None:
        settle("gs")
        import gcsfs

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # our own errors tell

        self._fs: Any = gcsfs.GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)

    def size(self, address: Address) -> int | None:
        """Bytes of the object; None where there is none."""
        if not address.key:
            return None
        with told("read", address):
            try:
                found = self._fs.info(_path(address))
            except FileNotFoundError:
                return None
        return int(found["size"]) if found["type"] == "file" else None

    def holds_any(self, address: Address) -> bool:
        """Whether anything lies below."""
        with contextlib.suppress(FileNotFoundError):
            return bool(self.names(address))
        return False

    def names(self, address: Address) -> list[str]:
        """Names in the folder, sorted; FileNotFoundError where nothing lies below."""
        with told("list", address):
            found = self._fs.ls(_path(address), detail=True, refresh=True)
        own = _path(address)
        names = {entry["name"].rstrip("/")[len(own) + 1 :] for entry in found} - {""}
        if not names and address.key:
            raise missing(address)
        return sorted(names)

    def files(self, address: Address, *, deep: bool) -> dict[str, tuple[int, str]]:
        """Size and a mark of the content of every object below, by its name from here."""
        own = _path(address)
        with told("list", address):
            try:
                if deep:
                    found = self._fs.find(own, detail=True, refresh=True).values()
                else:
                    found = self._fs.ls(own, detail=True, refresh=True)
            except FileNotFoundError:
                return {}
        names = {entry["name"][len(own) + 1 :]: entry for entry in found if entry["type"] == "file"}
        return {
            name: (int(names[name]["size"]), _mark(names[name])) for name in sorted(names) if name
        }

    def read(self, address: Address, start: int = 0, stop: int | None = None) -> bytes:
        """The content or a part of it; FileNotFoundError where there is none."""
        ends = {} if stop is None else {"start": start, "end": stop}
        with told("read", address):
            return self._fs.cat_file(_path(address), **ends)

    def ranges(self, address: Address, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of the content, read side by side."""
        with told("read", address):
            store = bucket_store(address)
            asked = [store.read(address.key, byte_range=slice(*ends)) for ends in ranges]
            found = [one.result() for one in asked]
        if any(one.state != "value" for one in found):
            raise missing(address)
        return [bytes(one.value) for one in found]

    def write(self, address: Address, content: bytes) -> None:
        """Writes the object; what lay there is replaced."""
        with told("write", address):
            try:
                self._fs.pipe_file(_path(address), content)
            except FileNotFoundError as error:
                raise no_bucket(address) from error

    def create(self, address: Address, content: bytes) -> bool:
        """Writes the object unless there is one; whether it was this call that did, or maybe."""
        with told("write", address):
            try:
                self._fs.pipe_file(_path(address), content, mode="create")
            except FileExistsError:
                return False
            except FileNotFoundError as error:
                raise no_bucket(address) from error
        return True

    def marked(self, address: Address) -> tuple[bytes | None, bytes]:
        """The content, None where there is no object, and a mark of this state."""
        with told("read", address):
            found = bucket_store(address).read(address.key).result()
        content = bytes(found.value) if found.state == "value" else None
        return content, found.stamp.generation

    def exchange(self, address: Address, mark: bytes, content: bytes | None) -> bytes | None:
        """Writes the object, or removes it, if its mark is this one; its new mark, else None."""
        with told("write", address):
            store = bucket_store(address)
            return store.write(address.key, content, if_equal=mark).result().generation or None

    def remove(self, address: Address) -> None:
        """Removes the object, if there is one."""
        with told("remove", address), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(_path(address))

    def copy(self, source: Address, target: Address) -> None:
        """Copies an object within the storage."""
        with told("write", target):
            self._fs.cp_file(_path(source), _path(target))

    @contextlib.contextmanager
    def writing(self, address: Address) -> Iterator[IO[bytes]]:
        """A file to write; the object is there once the block has ended without an error."""
        with told("write", address):
            file = self._fs.open(_path(address), "wb", block_size=BLOCK_BYTES)
        try:
            yield Stream(file, address)  # type: ignore[misc]
        except BaseException:
            # Closed as files are, what was written so far would be published.
            with contextlib.suppress(Exception):
                file.discard()
            file.closed = True
            raise
        with told("write", address):
            try:
                file.close()
            except FileNotFoundError as error:
                raise no_bucket(address) from error


def _path(address: Address) -> str:
    return f"{address.bucket}/{address.key}".rstrip("/")


def _mark(entry: dict[str, Any]) -> str:
    """What differs between contents of an object."""
    return str(entry.get("md5Hash") or entry.get("crc32c") or entry.get("etag"))
