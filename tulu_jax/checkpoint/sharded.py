"""Weights of a folder straight onto devices: each process reads the slices of its own devices.

Of files in a bucket each process reads an even share instead, in runs as they lie in the files,
and the devices pass on what others need: a slice of columns would be thousands of requests, or
the whole file for every one of them.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from tulu_jax.checkpoint.hf.tensors import cast, check_finite, numpy_dtype
from tulu_jax.checkpoint.reader import ParamPath, ParamsReader


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
        shares = even_shares(reader, path, sharding) if reader.far else None
        if shares is None:
            return _read(reader, path, sharding, dtype)
        read = _read(reader, path, shares, dtype)
        return jax.jit(lambda array: array, out_shardings=sharding)(read)

    return jax.tree_util.tree_map_with_path(place, shardings)


def even_shares(reader: ParamsReader, path: ParamPath, sharding: Any) -> NamedSharding | None:
    """How a weight is cut into as many runs of its file as there are devices; None: it cannot be.

    The axis is the first in the file's order that so many parts divide.
    """
    mesh, shape = sharding.mesh, reader.shape(path)
    axis = next((a for a in reader.file_order(path) if shape[a] % mesh.size == 0), None)
    if axis is None:
        return None
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, mesh.axis_names))


def _read(reader: ParamsReader, path: ParamPath, sharding: Any, dtype: str | None) -> jax.Array:
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
