"""Host rows -> global arrays; the one file of this room that knows JAX."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import NamedSharding

from tulu_jax.axes import Batch


def put_batch(rows: dict[str, np.ndarray], sharding: NamedSharding) -> Batch:
    """The global batch, of which this process holds `rows`; the copy goes on in the background.

    Args:
      rows: this host's share of each array, [B / hosts, T].
      sharding: of the global [B, T] arrays.
    """
    if sharding.is_fully_addressable:  # One call for all takes half the time.
        return jax.device_put(rows, sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in rows.items()
    }
