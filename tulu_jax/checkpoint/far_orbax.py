"""What Orbax and TensorStore must be told where checkpoints lie in a bucket.

Orbax 0.12.8 has no option for any of it: so it is told in places of its own, and then asked whether
it does what was meant.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from tulu_jax.errors import CheckpointError
from tulu_jax.places import CONTEXT, Address, Place, as_place, kvstore

CONTEXTS = ("_BASE_TS_CONTEXT", "_DEFAULT_OCDBT_TS_CONTEXT")
"""Where Orbax keeps what it tells TensorStore."""
S3 = "s3://"
PATTERN = "*?[]#"
"""By these fsspec, which Orbax deletes old steps with, would find other folders, or none."""


def prepare_orbax(place: Place) -> dict[str, Any]:
    """Options of a CheckpointManager whose folder is `place`, where Orbax can write by now.

    Raises:
      CheckpointError: it lies in s3://, and this Orbax cannot be told how to write there; or its
        name has a character that Orbax does not take for itself.
    """
    if not isinstance(place, Address):
        return {}
    if odd := sorted(set(place.key) & set(PATTERN)):
        raise CheckpointError(
            "run folder in a bucket has a name that Orbax takes for a pattern",
            got=" ".join(odd),
            at=place,
            expected=f"a name without any of {' '.join(PATTERN)}",
            do="choose another",
        )
    _bound_retries()
    if place.scheme != "s3":
        return {}
    _allow_s3()
    commit = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
    return {"atomicity_options": commit}


def _bound_retries() -> None:
    """Lets Orbax's reads and writes in buckets give up after some 12 s, not after 15 minutes.

    Of a later Orbax that keeps this elsewhere they give up when TensorStore does.
    """
    for name in CONTEXTS:
        context: Any = getattr(tensorstore_utils, name, None)
        if isinstance(context, dict):
            context.update({key: dict(value) for key, value in CONTEXT.items()})


@functools.cache
def _allow_s3() -> None:
    """Makes Orbax take s3:// as it takes gs://: for what TensorStore reads and writes itself.

    Source: the three names are those that google/orbax PR 2739 changes.
    """
    try:
        is_far, of_bucket = tensorstore_utils._use_gcs_driver, gcs_utils.get_kvstore_for_gcs
        normal = tensorstore_utils._normalize_path
        tensorstore_utils._use_gcs_driver = lambda path: path.startswith(S3) or is_far(path)
        tensorstore_utils._normalize_path = lambda path: (
            S3 + os.path.normpath(path.removeprefix(S3)) if path.startswith(S3) else normal(path)
        )
        gcs_utils.get_kvstore_for_gcs = lambda path: (
            _kvstore(path) if path.startswith(S3) else of_bucket(path)
        )
        ask = functools.partial(tensorstore_utils.build_kvstore_tspec, "s3://bucket/a/", "b")
        for found, key in ((ask(use_ocdbt=False), "a/b"), (ask(use_ocdbt=True)["base"], "a")):
            if (found["driver"], found["bucket"], found["path"]) != ("s3", "bucket", key):
                raise ValueError(f"it would write to {found}")
    except Exception as error:
        raise CheckpointError(
            "this version of Orbax cannot write checkpoints to s3://",
            got=f"orbax-checkpoint {importlib.metadata.version('orbax-checkpoint')}: {error!r}",
            expected="0.12.8",
            do="install that one, or set MODEL_DIR to gs:// or a folder; models and stores can "
            "be read from s3:// all the same",
        ) from error


def _kvstore(path: str) -> dict[str, Any]:
    """The key/value store of TensorStore at a path of Orbax's."""
    place = as_place(path)
    assert isinstance(place, Address)
    return kvstore(place) | {"path": place.key}
