"""The processes of one machine: the cores they may use, the work they share, their locks."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from tulu_jax.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3
"""Items that wait or are worked on, for each process."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def all_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def try_lock(descriptor: int) -> bool | None:
    """Whether the lock on an open file is this process's now; None where files have no locks.

    The lock ends with the process, however that ends, or when the file is closed.

    Raises: OSError.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


class Pool:
    """Processes that each make a function once, `make(*arguments)`, and map it over streams.

    They start with the first stream of more than one item, and end with this process, however it
    ends.
    """

    def __init__(
        self,
        make: Callable[..., Callable[[Any], Any]],
        arguments: tuple[Any, ...],
        *,
        num_processes: int = 1,
    ) -> None:
        """No process yet. With `num_processes` 1 all work is done in this process."""
        self._make, self._arguments = make, arguments
        self._num_processes = num_processes
        self._executor: ProcessPoolExecutor | None = None

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """What the function gives for each item, in order; items are read a few ahead.

        Raises: what `make` and its function raise; DataError when a process dies.
        """
        items = iter(items)
        first = [] if self._num_processes == 1 else list(islice(items, 2))
        items = chain(first, items)
        if len(first) < 2:
            yield from map(self._make(*self._arguments), items)
            return
        waiting: deque[Future[Any]] = deque()
        try:
            for item in items:
                waiting.append(self._started().submit(_work, item))
                if len(waiting) >= AHEAD * self._num_processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that works on the data died",
                got=error,
                do="run the command again; with fewer --num_processes when memory is short",
            ) from error
        finally:
            for future in waiting:
                future.cancel()

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            spawn = multiprocessing.get_context("spawn")
            given = (self._make, self._arguments)
            self._executor = ProcessPoolExecutor(self._num_processes, spawn, _start, given)
        return self._executor

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the processes after the items they are at; those that wait are forgotten."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


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
    """The stream's name and the result of each chunk of `size` items, in order, by a `Pool`.

    The streams are read by the caller's process one after the other, no faster than the results
    are taken.

    Raises: as `Pool.map`.
    """
    names: deque[str] = deque()

    def chunks() -> Iterator[list[Item]]:
        for name, items in streams.items():
            for chunk in chunked(items, size):
                names.append(name)
                yield chunk

    with Pool(make, arguments, num_processes=num_processes) as pool:
        for result in pool.map(chunks()):
            yield names.popleft(), result


_function: Callable[[Any], Any] | None = None
"""In a process of a pool: what it maps."""


def _start(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what is to be done
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function = make(*arguments)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone; a killed parent cannot say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(item: Any) -> Any:
    assert _function is not None
    return _function(item)
