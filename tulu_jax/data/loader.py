"""Batches for the training loop: read ahead by Grain, and nothing to save but the step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grain.python as grain

from tulu_jax.data.rows import Rows, RowStream
from tulu_jax.errors import ConfigError

_NO_END = 1 << 40


class Batches:
    """An iterator of batches; `next_step` is its whole state."""

    def __init__(self, batches: Iterator[Rows], next_step: int) -> None:
        """Use `open_batches`."""
        self._batches = batches
        self.next_step = next_step

    def __iter__(self) -> Batches:
        """Itself."""
        return self

    def __next__(self) -> Rows:
        """The batch of step `next_step`, which then becomes one more."""
        batch = next(self._batches)
        self.next_step += 1
        return batch

    def close(self) -> None:
        """Stops reading ahead."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


class _Steps(grain.MapDataset[Any]):
    """Maps a number to the batch of step `start + number`."""

    def __init__(self, rows: RowStream, start: int, length: int, arguments: dict[str, int]) -> None:
        super().__init__()
        self._rows, self._start, self._length = rows, start, length
        self._arguments = arguments

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return self._rows.batch(self._start + index, **self._arguments)


def open_batches(
    rows: RowStream,
    *,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    read_ahead: int = 4,
) -> Batches:
    """The batches of this host from `start_step` on, until the epochs of `rows` are over.

    Equal to `rows.batch(start_step, ...)`, `rows.batch(start_step + 1, ...)` and so on, made
    ahead of time by `threads` threads.

    Raises: ConfigError when the batch does not divide among the hosts.
    """
    if batch_size % process_count:
        raise ConfigError(
            "batch does not divide among the hosts",
            got=f"{batch_size} rows, {process_count} hosts",
            expected=f"a multiple of {process_count}",
            do="change BATCH_SIZE",
        )
    steps = rows.num_steps(batch_size)
    left = max(0, steps - start_step) if steps is not None else _NO_END
    arguments = {
        "batch_size": batch_size,
        "process_index": process_index,
        "process_count": process_count,
    }
    source = _Steps(rows, start_step, left, arguments)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, read_ahead))
    return Batches(iter(source.to_iter_dataset(options)), start_step)
