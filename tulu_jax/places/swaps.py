"""Objects that several write: each write holds only if nobody else wrote in between."""

from __future__ import annotations

from typing import NamedTuple

from tulu_jax.places.address import Address
from tulu_jax.places.backend import storage


class Marked(NamedTuple):
    """An object's content, None where there is none, and what names this state of it."""

    content: bytes | None
    mark: bytes


def read_marked(address: Address) -> Marked:
    """The object as it is now.

    Raises: StorageError.
    """
    return Marked(*storage(address).marked(address))


def swap(address: Address, before: Marked, content: bytes | None) -> Marked | None:
    """The object after it was written (None: removed), or None if it is not as it was `before`.

    Where the answer to a request was lost and it was sent again, the second finds the first's
    work: so what is there is compared.

    Raises: StorageError.
    """
    mark = storage(address).exchange(address, before.mark, content)
    if mark is not None:
        return Marked(content, mark)
    now = read_marked(address)
    return now if now.content == content else None
