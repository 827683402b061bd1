"""Parts of large objects, read side by side by TensorStore."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from tulu_jax.places.address import Address, Place, missing
from tulu_jax.places.backend import told

RETRIES = 5
"""Of one request: about 12 s. TensorStore's own 32 take 15 minutes before it says a word."""
CONTEXT = {"gcs_request_retries": {"max_retries": RETRIES}}


def read_ranges(place: Place, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes [start, stop) of each range of a file or object; many are read at once.

    Raises: FileNotFoundError; OSError, of which a range that ends behind the content is one.
    """
    if not isinstance(place, Address):
        with open(place, "rb") as file:
            found = [_from(file, *ends) for ends in ranges]
    else:
        found = _from_bucket(place, ranges)
    for data, (start, stop) in zip(found, ranges, strict=True):
        if len(data) != stop - start:
            raise OSError(None, f"bytes {start} to {stop} are not there", str(place))
    return found


def _from(file: Any, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)


def _from_bucket(address: Address, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    with told("read", address):
        store = bucket_store(address)
        asked = [store.read(address.key, byte_range=slice(start, stop)) for start, stop in ranges]
        found = [one.result() for one in asked]
    if any(one.state != "value" for one in found):
        raise missing(address)
    return [bytes(one.value) for one in found]


def bucket_store(address: Address) -> Any:
    """The key/value store of TensorStore of the whole bucket that an address lies in."""
    return _bucket(address.scheme, address.bucket)


@functools.cache
def _bucket(scheme: str, bucket: str) -> Any:
    import tensorstore

    spec = kvstore(Address(scheme, bucket))
    return tensorstore.KvStore.open(spec, context=tensorstore.Context(CONTEXT)).result()


def kvstore(place: Place) -> dict[str, Any]:
    """The key/value store of TensorStore whose keys lie in a folder.

    >>> kvstore(Address("gs", "bucket", "runs/a"))
    {'driver': 'gcs', 'bucket': 'bucket', 'path': 'runs/a/'}
    """
    if not isinstance(place, Address):
        return {"driver": "file", "path": f"{place}/"}
    path = f"{place.key}/" if place.key else ""
    return {"driver": "gcs", "bucket": place.bucket, "path": path}
