"""Arrays of a checkpoint written and read in parts along their first axis.

A weight of all layers is one stacked array [L, ...]: 5.8 GB for one matrix of a 7B model in
float32. Written and read a layer at a time, none of it is ever whole in memory. The chunks on disk
are the parts, so that reading one part decodes nothing else.
"""

from __future__ import annotations

import collections
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint import type_handlers
from orbax.checkpoint._src.serialization import tensorstore_utils

T = TypeVar("T")

PART_BYTES = 64 * 2**20
"""Most bytes of an unstacked array in one part."""
LAYER_ARGS = ocp.SaveArgs(shard_axes=(0,))
"""How a stacked array of a training run is saved: one layer of one shard to a chunk."""


@dataclass(frozen=True)
class LazyArray:
    """An array of known shape and dtype that is made when it is wanted, whole or in parts."""

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]
    load_part: Callable[[int, int], np.ndarray] | None = None
    """Makes rows start to stop of the first axis; None: it is only made whole."""
    stacked: bool = False
    """Whether the first axis is layers: then a part is one of them."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes once loaded."""
        return self.size * self.dtype.itemsize

    @property
    def part_rows(self) -> int:
        """Rows of the first axis in one part; all of them when it is only made whole."""
        rows = self.shape[0] if self.shape else 1
        if self.load_part is None or not self.nbytes:
            return max(rows, 1)
        if self.stacked:
            return 1
        return max(1, min(rows, PART_BYTES * rows // self.nbytes))

    def parts(self) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """Where each part begins, and what makes it."""
        load_part, step = self.load_part, self.part_rows
        if load_part is None or not self.shape:
            yield 0, self.load
            return
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            yield start, lambda start=start, stop=stop: load_part(start, stop)


def num_threads() -> int:
    """Threads that make parts side by side: as many as processors, at most 4."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def made_ahead(makers: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results in order, some made ahead by threads: one a thread, and the one in hand."""
    waiting: collections.deque[Future[T]] = collections.deque()
    with ThreadPoolExecutor(num_threads()) as pool:
        try:
            for make in makers:
                waiting.append(pool.submit(make))
                if len(waiting) > num_threads():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class LazyHandler(type_handlers.NumpyHandler):
    """Writes lazy arrays one after another, part by part."""

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> list[Future]:
        """Returns when everything is written; there is nothing left to wait for."""
        for value, info in zip(values, infos, strict=True):
            await info.await_path_creation()
            _write_parts(value, info)
        return []


def _write_parts(value: LazyArray, info: Any) -> None:
    spec = tensorstore_utils.build_array_write_spec(
        info=info,
        global_shape=value.shape,
        local_shape=value.shape,
        dtype=value.dtype,
        use_ocdbt=info.is_ocdbt_checkpoint,
        process_index=0,
    ).json
    _set_chunks(spec, [value.part_rows, *value.shape[1:]] if value.shape else [])
    store = tensorstore.open(
        tensorstore.Spec(spec), create=True, open=True, context=info.ts_context
    ).result()
    starts, makers = [], []
    for start, make in value.parts():
        starts.append(start)
        makers.append(make)
    writing: collections.deque[Any] = collections.deque()
    for start, part in zip(starts, made_ahead(makers), strict=True):
        target = store[start : start + len(part)] if value.shape else store
        writing.append(target.write(part, can_reference_source_data_indefinitely=True))
        if len(writing) > 1:
            writing.popleft().result()
    while writing:
        writing.popleft().result()


def _set_chunks(spec: dict[str, Any], chunks: list[int]) -> None:
    """Makes the chunks on disk the parts: the spec may have a cast around it."""
    while "base" in spec:
        spec = spec["base"]
    spec["metadata"]["chunks"] = [max(1, size) for size in chunks]


class PartReader:
    """Parts of the arrays of one checkpoint's `state` folder."""

    def __init__(self, state: Path) -> None:
        """Opens nothing yet."""
        self._state = state
        self._stores: dict[tuple[str, ...], Any] = {}
        self._driver = "zarr3" if _uses_zarr3(state) else "zarr"

    def rows_at_once(self, path: tuple[str, ...]) -> int:
        """Rows of the first axis that one chunk on disk holds."""
        shape = self._store(path).chunk_layout.read_chunk.shape
        return shape[0] if shape else 1

    def read(self, path: tuple[str, ...], start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one array.

        Raises:
          ValueError: its data is missing or damaged.
        """
        return self._store(path)[start:stop].read().result()

    def _store(self, path: tuple[str, ...]) -> Any:
        if path not in self._stores:
            base = {"driver": "file", "path": f"{self._state}/"}
            spec = {
                "driver": self._driver,
                "kvstore": {"driver": "ocdbt", "base": base, "path": f"{'.'.join(path)}/"},
            }
            self._stores[path] = tensorstore.open(spec, open=True, read=True).result()
        return self._stores[path]


def _uses_zarr3(state: Path) -> bool:
    try:
        return bool(json.loads((state / "_METADATA").read_text("utf-8")).get("use_zarr3"))
    except (OSError, ValueError, AttributeError):
        return False
