"""Batches for the devices, each copied there while the step before it runs."""

from __future__ import annotations

import time

from tulu_jax.axes import Batch
from tulu_jax.data.loader import open_batches
from tulu_jax.data.to_device import put_batch
from tulu_jax.train.flight import Flight
from tulu_jax.train.goodput import Clock
from tulu_jax.train.guards import check_batch
from tulu_jax.train.run import Run


class Feed:
    """The run's batches from a step on, checked and on the devices one ahead of their use."""

    def __init__(self, run: Run, clock: Clock, *, first_step: int) -> None:
        """Begins with the batch of `first_step`."""
        self._run, self._clock = run, clock
        self._batches = open_batches(
            run.data.train,
            batch_size=run.config.data.batch_size,
            start_step=first_step,
            **run.row_share,
        )
        self._left = run.total_steps - first_step
        self._next: Batch | None = None

    def take(self, flight: Flight) -> Batch:
        """The batch of the next step."""
        self.prefetch(flight)
        batch, self._next = self._next, None
        assert batch is not None, "more steps than batches"
        return batch

    def prefetch(self, flight: Flight) -> None:
        """Starts copying the batch after that.

        The time until it is there counts as waiting for data only if the devices had nothing to
        do at its end.
        """
        if self._next is not None or not self._left:
            return
        began = time.perf_counter()
        rows, step = next(self._batches), self._batches.next_step - 1
        if flight.idle:
            self._clock.move(time.perf_counter() - began, "data wait")
        tokenizer = self._run.data.tokenizer
        check_batch(rows, step=step, bos_id=tokenizer.bos_in_front, bos_once=tokenizer.bos_once)
        self._next = put_batch(rows, self._run.layout.rows)
        self._left -= 1

    def close(self) -> None:
        """Stops reading ahead."""
        self._batches.close()
