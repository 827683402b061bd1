"""Parts of large files and objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tulu_jax.places.address import Address, Place
from tulu_jax.places.backend import storage


def read_ranges(place: Place, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes [start, stop) of each range of a file or object; many are read at once.

    Raises: FileNotFoundError; OSError, of which a range that ends behind the content is one.
    """
    if isinstance(place, Address):
        found = storage(place).ranges(place, ranges)
    else:
        with open(place, "rb") as file:
            found = [_from(file, *ends) for ends in ranges]
    for data, (start, stop) in zip(found, ranges, strict=True):
        if len(data) != stop - start:
            raise OSError(None, f"bytes {start} to {stop} are not there", str(place))
    return found


def _from(file: Any, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)
