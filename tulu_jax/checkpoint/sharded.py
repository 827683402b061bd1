"""Weights of a folder straight onto devices: each process reads the slices of its own devices."""

from __future__ import annotations

from typing import Any

import jax

from tulu_jax.checkpoint.hf.tensors import cast, check_finite, numpy_dtype
from tulu_jax.checkpoint.reader import ParamsReader


def read_sharded(reader: ParamsReader, shardings: Any, *, dtype: str | None = None) -> Any:
    """The tree of weights as device arrays, laid out as `shardings` says.

    A slice that several devices of this process hold is read once. On the host lies one slice of
    one weight at a time.

    Args:
      reader: an opened folder.
      shardings: the tree of weights with a sharding at every leaf.
      dtype: what they are rounded to; None leaves them as the reader gives them.
    """

    def place(keys: Any, sharding: Any) -> jax.Array:
        path = tuple(key.key for key in keys)
        shape = reader.shape(path)
        indices = sharding.addressable_devices_indices_map(shape)
        holders: dict[tuple[tuple[int, int], ...], list[Any]] = {}
        for device, index in indices.items():
            ends = tuple(part.indices(n)[:2] for part, n in zip(index, shape, strict=True))
            holders.setdefault(ends, []).append(device)
        pieces = []
        for ends, devices in holders.items():
            values = reader.read_slice(path, tuple(slice(*pair) for pair in ends))
            check_finite(values, "/".join(path), None)
            if dtype is not None:
                values = cast(values, numpy_dtype(dtype), "/".join(path))
            pieces.extend(jax.device_put(values, device) for device in devices)
            jax.block_until_ready(pieces)
        return jax.make_array_from_single_device_arrays(shape, sharding, pieces)

    return jax.tree_util.tree_map_with_path(place, shardings)
