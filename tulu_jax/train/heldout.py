"""Loss on conversations that training does not see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from tulu_jax.data.rows import RowSource
from tulu_jax.data.to_device import put_batch
from tulu_jax.train.goodput import Clock
from tulu_jax.train.run import Run
from tulu_jax.train.watchdog import Watch


class HeldOut:
    """The held-out rows of each dataset, and the last loss on them."""

    def __init__(self, run: Run, frozen: tuple[Any, ...], clock: Clock, watch: Watch) -> None:
        """Nothing is measured yet; `frozen` are the weights beside those that are trained."""
        self._run, self._frozen = run, frozen
        self._clock, self._watch = clock, watch
        self._step = run.eval_step()
        self.losses: dict[str, float] = {}
        """Mean nll per loss token, by dataset."""

    def measure(self, params: Any) -> dict[str, float]:
        """The losses with these weights (or adapters)."""
        with self._clock.phase("held-out"), self._watch.phase("held-out"):
            for name, source in self._run.data.heldout.items():
                self.losses[name] = self._mean_nll(params, source)
        return self.losses

    def _mean_nll(self, params: Any, source: RowSource) -> float:
        data, rows = self._run.config.data, self._run.layout.rows
        sums = [
            self._step(params, put_batch(batch, rows), *self._frozen)
            for batch in _all_batches(
                source, data.batch_size // self._run.config.micro_batches, self._run.row_share
            )
        ]
        nll, count = (sum(map(float, column)) for column in zip(*jax.device_get(sums), strict=True))
        return nll / max(count, 1.0)


def _all_batches(source: RowSource, size: int, share: dict[str, int]) -> Iterator[dict[str, Any]]:
    for step in range(source.num_steps(size) or 0):
        yield source.batch(step, size, **share)
