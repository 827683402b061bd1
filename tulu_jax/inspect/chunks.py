"""Work on a long stream in several processes, with only a few chunks of it in memory."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from tulu_jax.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3
"""Chunks that wait or are worked on, for each process."""

_STATE: dict[str, Any] = {}


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last one may be shorter.

    >>> list(chunked("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def map_chunks(
    make: Callable[..., Callable[[list[Item]], Result]],
    arguments: tuple[Any, ...],
    *,
    streams: Mapping[str, Iterable[Item]],
    size: int,
    num_processes: int = 1,
) -> Iterator[tuple[str, Result]]:
    """The stream's name and the result of each chunk of `size` items, in order.

    Every process calls `make(*arguments)` once and the function it returns once a chunk. With one
    process all happens here. The streams are read by the caller's process one after the other, no
    faster than the results are taken.

    Raises: DataError when a process is killed; what `make` or its function raises.
    """
    chunks = ((name, chunk) for name, items in streams.items() for chunk in chunked(items, size))
    if num_processes == 1:
        work = make(*arguments)
        yield from ((name, work(chunk)) for name, chunk in chunks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, _start, (make, arguments)) as pool:
        waiting: deque[tuple[str, Future[Result]]] = deque()
        try:
            for name, chunk in chunks:
                waiting.append((name, pool.submit(_work, chunk)))
                if len(waiting) >= AHEAD * num_processes:
                    name, future = waiting.popleft()
                    yield name, future.result()
            for name, future in waiting:
                yield name, future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that works on the data was ended from outside",
                do="if memory ran out, take fewer with --num_processes",
            ) from error
        finally:
            for _, future in waiting:
                future.cancel()


def _start(make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _STATE["work"] = make(*arguments)


def _work(chunk: list[Any]) -> Any:
    return _STATE["work"](chunk)
