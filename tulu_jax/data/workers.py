"""The processes that prepare data, and what they know."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, MutableSequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from tulu_jax.chat import Tokenizer
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.errors import DataError


def all_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class Context:
    """What a job gets besides its own arguments.

    `progress[i]` is how many conversations of dataset i have been read; every process sees it.
    """

    options: PrepareOptions
    tokenizer: Tokenizer
    progress: MutableSequence[int]


class Workers:
    """Runs jobs `function(context, ...)` in `options.num_processes` processes, or in this one.

    The processes end with this one, however it ends.
    """

    def __init__(self, options: PrepareOptions, tokenizer: Tokenizer, num_datasets: int) -> None:
        """No process yet: the first job that may wait starts them."""
        self._spawn = multiprocessing.get_context("spawn")
        progress = self._spawn.RawArray("q", max(1, num_datasets))
        self.context = Context(options, tokenizer, progress)
        self.num_processes = options.num_processes
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """The job's result to come; with one process it is there already."""
        if self.num_processes == 1:
            return self.run(function, *arguments)
        if self._pool is None:
            given = (self.context.options, self.context.progress)
            self._pool = ProcessPoolExecutor(self.num_processes, self._spawn, _start, given)
        return self._pool.submit(_work, function, *arguments)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """The job's result, made in this process."""
        future: Future[Any] = Future()
        future.set_result(function(self.context, *arguments))
        return future

    def close(self) -> None:
        """Ends the processes after the jobs they are at; those that wait are forgotten."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def result_of(future: Future[Any]) -> Any:
    """What the job gave.

    Raises: what the job raised; DataError when its process died.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that prepares data died",
            got=error,
            do="run the command again: it goes on where it stopped; "
            "with fewer --num_processes when memory is short",
        ) from error


_context: Context | None = None


def _start(options: PrepareOptions, progress: MutableSequence[int]) -> None:
    global _context
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what is to be done
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _context = Context(options, options.load_tokenizer(), progress)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone; a killed parent cannot say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(_context, *arguments)
