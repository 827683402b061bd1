"""Folders as key/value stores of TensorStore."""

from __future__ import annotations

import functools
from typing import Any

from tulu_jax.places.address import Address, Place
from tulu_jax.places.amazon import kvstore_of

RETRIES = 5
"""Of one request: about 12 s. TensorStore's own 32 take 15 minutes before it says a word."""
CONTEXT = {
    "gcs_request_retries": {"max_retries": RETRIES},
    "s3_request_retries": {"max_retries": RETRIES},
}


def kvstore(place: Place) -> dict[str, Any]:
    """The key/value store of TensorStore whose keys lie in a folder.

    >>> kvstore(Address("gs", "bucket", "runs/a"))
    {'driver': 'gcs', 'bucket': 'bucket', 'path': 'runs/a/'}
    """
    if not isinstance(place, Address):
        return {"driver": "file", "path": f"{place}/"}
    prefix = f"{place.key}/" if place.key else ""
    if place.scheme == "s3":
        return kvstore_of(place.bucket, prefix)
    return {"driver": "gcs", "bucket": place.bucket, "path": prefix}


def bucket_store(address: Address) -> Any:
    """The key/value store of the whole bucket that an address lies in."""
    return _bucket(address.scheme, address.bucket)


@functools.cache
def _bucket(scheme: str, bucket: str) -> Any:
    import tensorstore

    spec = kvstore(Address(scheme, bucket))
    return tensorstore.KvStore.open(spec, context=tensorstore.Context(CONTEXT)).result()
