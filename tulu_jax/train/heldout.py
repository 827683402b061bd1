"""Loss on conversations that training does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from tulu_jax.data.rows import RowSource
from tulu_jax.data.to_device import put_batch
from tulu_jax.train.setup import Run


def heldout_losses(
    run: Run,
    eval_step: Callable[..., Any],
    weights: tuple[Any, tuple[Any, ...]],
) -> dict[str, float]:
    """Mean nll per loss token of each dataset's held-out rows.

    Args:
      run: the run.
      eval_step: from `make_eval_step`.
      weights: what is trained, and the frozen weights beside it, if any.
    """
    losses = {}
    rows_at_once = run.config.data.batch_size // run.config.micro_batches
    for name, source in run.data.heldout.items():
        sums = [
            eval_step(weights[0], put_batch(rows, run.layout.rows), *weights[1])
            for rows in _all_batches(source, rows_at_once, run.row_share)
        ]
        nll, count = (sum(map(float, column)) for column in zip(*jax.device_get(sums), strict=True))
        losses[name] = nll / max(count, 1.0)
    return losses


def _all_batches(source: RowSource, size: int, share: dict[str, int]) -> Iterator[dict[str, Any]]:
    for step in range(source.num_steps(size) or 0):
        yield source.batch(step, size, **share)
