"""The storage that an address lies in: each scheme's has the same methods."""

from __future__ import annotations

from tulu_jax.places.address import Address
from tulu_jax.places.amazon import Amazon, amazon
from tulu_jax.places.google import Google, google


def storage(address: Address) -> Google | Amazon:
    """The storage that an address lies in."""
    if address.scheme == "gs":
        return google()
    if address.scheme == "s3":
        return amazon()
    raise NotImplementedError(f"{address} is not read where it lies")
