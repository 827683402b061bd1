"""What Orbax and TensorStore must be told where checkpoints lie in a bucket."""

from __future__ import annotations

from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils

from tulu_jax.places import CONTEXT

CONTEXTS = ("_BASE_TS_CONTEXT", "_DEFAULT_OCDBT_TS_CONTEXT")
"""Where Orbax 0.12.8 keeps what it tells TensorStore; it has no option for that."""


def bound_retries() -> None:
    """Lets Orbax's reads and writes in buckets give up after some 12 s, not after 15 minutes.

    Of a later Orbax that keeps this elsewhere they give up when TensorStore does.
    """
    for name in CONTEXTS:
        context: Any = getattr(tensorstore_utils, name, None)
        if isinstance(context, dict):
            context.update({key: dict(value) for key, value in CONTEXT.items()})
