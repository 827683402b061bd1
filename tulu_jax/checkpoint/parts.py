"""Arrays of a checkpoint written and read in parts along their first axis.

A weight of all layers is one stacked array [L, ...]: 5.8 GB for one matrix of a 7B model in
float32. Written and read a layer at a time, none of it is ever whole in memory. The chunks on disk
are the parts, so that reading one part decodes nothing else.
"""

from __future__ import annotations

import collections
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint import type_handlers

from tulu_jax.checkpoint.lazy import LazyArray, made_ahead, write_bytes
from tulu_jax.files import json_or_none
from tulu_jax.places import CONTEXT, Address, Place, as_place, kvstore

LAYER_ARGS = ocp.SaveArgs(shard_axes=(0,))
"""How a stacked array of a training run is saved: one layer of one shard to a chunk."""


def chunked_by_layer(tree: Any) -> Any:
    """How each array is saved: stacked ones a layer to a chunk, so that export reads one layer."""

    def choose(keys: Any, leaf: Any) -> ocp.SaveArgs:
        stacked = any(getattr(key, "key", None) == "layers" for key in keys) and leaf.ndim
        return LAYER_ARGS if stacked else ocp.SaveArgs()

    return jax.tree_util.tree_map_with_path(choose, tree)


class LazyHandler(type_handlers.NumpyHandler):
    """Writes lazy arrays part by part, each part a plain file: the numbers in C order.

    That is Zarr's own layout without compression, for which Orbax asks by `use_ocdbt=False`. Parts
    are made and written by a few threads. Nothing waits for the disk: what is imported is still
    where it came from. Twelve arrays of 64 MiB, from files in the page cache, on two busy cores:
    0.9 s and 8 MiB of memory so; 1.9 s and 40 MiB by TensorStore, told not to wait for the disk;
    4.4 s and 1,800 MiB by Orbax, which wants arrays whole.
    """

    def __init__(self, before_commit: Callable[[], Any] | None = None) -> None:
        """What is called when all is written; if it raises, the checkpoint does not count."""
        super().__init__(deepcopy_host_arrays=False)
        self._before_commit = before_commit

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> list[Future]:
        """Returns when everything is written; there is nothing left to wait for."""
        writers: list[Callable[[], None]] = []
        for value, info in zip(values, infos, strict=True):
            await info.await_path_creation()
            if value.load_part is None:  # it may be large: one at a time
                for write in _part_writers(value, info):
                    write()
            else:
                writers.extend(_part_writers(value, info))
        collections.deque(made_ahead(writers), maxlen=0)
        if self._before_commit is not None:
            self._before_commit()
        return []


def _part_writers(value: LazyArray, info: Any) -> Iterator[Callable[[], None]]:
    """What writes each part to its file; the array's own description is written here."""
    folder = as_place(str(info.parent_dir)) / info.name
    chunk = [max(1, value.part_rows), *(max(1, size) for size in value.shape[1:])]
    chunk = chunk[: len(value.shape)]
    layout = {"shape": value.shape, "chunks": chunk, "compressor": None, "order": "C"}
    spec = {
        "driver": "zarr",
        "kvstore": kvstore(folder),
        "dtype": value.dtype.name,
        "metadata": layout,
    }
    tensorstore.open(spec, create=True, context=info.ts_context).result()
    for start, make in value.parts():
        file = folder / _chunk_name(chunk, start)
        yield lambda file=file, make=make: _write_file(file, _padded(make(), chunk))


def _write_file(path: Place, array: np.ndarray) -> None:
    """Writes the numbers in C order; they may reach the disk later."""
    if isinstance(path, Address):
        path.write_bytes(np.ascontiguousarray(array).tobytes())
        return
    with path.open("wb", buffering=0) as file:
        write_bytes(file, np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _chunk_name(chunk: list[int], start: int) -> str:
    """Zarr's name of the chunk whose rows begin at `start`; the other axes are whole.

    >>> _chunk_name([2, 512], 6), _chunk_name([], 0)
    ('3.0', '0')
    """
    return ".".join(str(n) for n in [start // chunk[0], *(0 for _ in chunk[1:])]) if chunk else "0"


def _padded(part: np.ndarray, chunk: list[int]) -> np.ndarray:
    """The part, with zeros behind it where the array ends inside a chunk."""
    if not chunk or len(part) == chunk[0]:
        return part
    whole = np.zeros(chunk, part.dtype)
    whole[: len(part)] = part
    return whole


class PartReader:
    """Parts of the arrays of one checkpoint's `state` folder."""

    def __init__(self, state: Place) -> None:
        """Opens nothing yet."""
        self._state = state
        self._stores: dict[tuple[str, ...], Any] = {}
        self._chunks: dict[tuple[str, ...], list[int] | None] = {}
        metadata = _state_metadata(state)
        self._driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
        self._in_files = not uses_ocdbt(state)

    def rows_at_once(self, path: tuple[str, ...]) -> int:
        """Rows of the first axis that one chunk on disk holds."""
        shape = self._store(path).chunk_layout.read_chunk.shape
        return shape[0] if shape else 1

    def read(self, path: tuple[str, ...], start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one array; pages of its file where they lie in one.

        Raises:
          ValueError: its data is missing or damaged.
        """
        chunk = self._plain_chunk(path)
        if chunk and start < stop and start // chunk[0] == (stop - 1) // chunk[0]:
            first = start % chunk[0]
            return self._chunk(path, chunk, start, whole=True)[first : first + stop - start]
        return self._store(path)[start:stop].read().result()

    def read_slice(self, path: tuple[str, ...], index: Sequence[slice]) -> np.ndarray:
        """A part of one array, in memory of its own; of plain files only its own bytes are read.

        Raises:
          ValueError: its data is missing or damaged.
        """
        store, chunk = self._store(path), self._plain_chunk(path)
        if not chunk:
            return store[tuple(index)].read().result()
        index = [*index, *[slice(None)] * (len(store.shape) - len(index))]
        ends = [part.indices(n)[:2] for part, n in zip(index, store.shape, strict=True)]
        result = np.empty([max(stop - start, 0) for start, stop in ends], store.dtype.numpy_dtype)
        (start, stop), rest = ends[0], tuple(slice(*pair) for pair in ends[1:])
        for row in range(start - start % chunk[0], stop, chunk[0]) if result.size else ():
            first, last = max(start, row), min(stop, row + chunk[0])
            rows = self._chunk(path, chunk, row, whole=False)
            result[first - start : last - start] = rows[(slice(first - row, last - row), *rest)]
        return result

    def _plain_chunk(self, path: tuple[str, ...]) -> list[int] | None:
        """The shape of the array's chunks if they are files of rows of plain numbers."""
        if isinstance(self._state, Address):  # parts of objects are for TensorStore to read
            return None
        if path not in self._chunks:
            store = self._store(path)
            layout = store.spec().to_json().get("metadata", {})
            plain = not layout.get("compressor") and not layout.get("filters")
            chunk = layout.get("chunks") or []
            plain = plain and layout.get("order") == "C" and chunk[1:] == list(store.shape[1:])
            self._chunks[path] = chunk if self._in_files and plain else None
        return self._chunks[path]

    def _chunk(
        self, path: tuple[str, ...], chunk: list[int], row: int, *, whole: bool
    ) -> np.ndarray:
        """The chunk that holds a row, as pages of its file.

        They are read at once if the `whole` is wanted, else when they are touched.
        """
        file = self._state / ".".join(path) / _chunk_name(chunk, row)
        dtype = self._store(path).dtype.numpy_dtype
        size = math.prod(chunk) * dtype.itemsize
        with file.open("rb") as opened:
            if not size or opened.seek(0, 2) != size:
                raise ValueError(f"{file} is not of {size:,} bytes")
            flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if whole else 0)
            pages = mmap.mmap(opened.fileno(), size, flags=flags, prot=mmap.PROT_READ)
        return np.frombuffer(pages, dtype).reshape(chunk)

    def _store(self, path: tuple[str, ...]) -> Any:
        if path not in self._stores:
            name = ".".join(path)
            within: dict[str, Any] = {
                "driver": "ocdbt", "base": kvstore(self._state), "path": f"{name}/"
            }  # fmt: skip
            if self._in_files:
                within = kvstore(self._state / name)
            spec = {"driver": self._driver, "kvstore": within, "fill_missing_data_reads": False}
            context = tensorstore.Context(CONTEXT)
            opened = tensorstore.open(spec, open=True, read=True, context=context)
            self._stores[path] = opened.result()
        return self._stores[path]


def uses_ocdbt(state: Place) -> bool:
    """Whether arrays lie in TensorStore's database, as training saves them, or in plain files."""
    return bool(_state_metadata(state).get("use_ocdbt", (state / "manifest.ocdbt").is_file()))


def _state_metadata(state: Place) -> dict[str, Any]:
    found = json_or_none(state / "_METADATA")
    return found if isinstance(found, dict) else {}
