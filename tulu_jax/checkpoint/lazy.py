"""Arrays that are made when they are wanted, whole or in parts, some ahead by threads.

Nothing here needs Orbax: who only reads a Hugging Face folder does not wait for its import.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import RawIOBase
from typing import TypeVar

import numpy as np

from tulu_jax.processes import all_cores

T = TypeVar("T")

PART_BYTES = 16 * 2**20
"""Most bytes of an unstacked array in one part."""
WRITE_BYTES = 128 * 2**10
"""Bytes given to the kernel at once, as by `cp`. For more it takes larger pages for its cache, and
a virtual machine may have to get these back from its host: that took 3 times as long."""


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
    """Threads that make parts side by side: one a processor, at least 2 and at most 4."""
    return max(2, min(4, all_cores()))


def made_ahead(makers: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results in order, some made ahead by threads: one a thread, and the one in hand."""
    threads = num_threads()
    waiting: collections.deque[Future[T]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for make in makers:
                waiting.append(pool.submit(make))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def write_bytes(file: RawIOBase, data: np.ndarray) -> None:
    """Writes bytes, uint8[n], to a file that is opened without a buffer.

    Raises:
      OSError: the disk is full or fails.
    """
    done = 0
    while done < data.size:
        done += file.write(data[done : done + WRITE_BYTES].data) or 0
