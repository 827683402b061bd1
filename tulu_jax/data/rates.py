"""The schedule `rates`: datasets in fixed shares, each without repeats until it is used up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from tulu_jax.data.packing import PackingMode
from tulu_jax.data.rows import DatasetShare, Rows, RowSource, RowStream, make_rows
from tulu_jax.data.store import Store
from tulu_jax.errors import ConfigError

_ORDER_STREAM = 1 << 32
"""Streams of a seed below this belong to packing and to the orders of rows."""


def size_rate(
    examples: int, *, maximum: int | None = None, temperature: float = 1.0, scale: float = 1.0
) -> float:
    """A dataset's rate by its size, as `seqio.mixing_rate_num_examples` gives it.

    That is (examples x scale), no more than `maximum`, to the power of 1 / `temperature`: 1 draws
    in proportion to size, a large one draws from all alike.

    >>> size_rate(100_000, maximum=20_000), size_rate(100, temperature=2.0)
    (20000.0, 10.0)
    """
    rate = examples * scale
    if maximum is not None:
        rate = min(rate, maximum)
    return float(rate ** (1.0 / temperature))


class RatedRows(RowStream):
    """Rows of several datasets, each row of one of them, in fixed shares of the examples.

    Each dataset has its own packing plan and its own order, in which no example comes again
    before all have come. An epoch has as many rows as the datasets have together; in each one a
    dataset has the same number of rows, spread evenly. Which dataset a row is of, and which of
    its rows, follows from the number of the row alone: so does the batch of any step.

    With two datasets of 4 rows of 10 examples each and rates of 3 to 1, an epoch may be

        dataset   a b a a a b a a
        its row   0 0 1 2 3 1 4 5

    and row 4 of a is the first of its second pass.
    """

    def __init__(
        self,
        sources: Sequence[RowSource],
        rates: Sequence[float],
        *,
        seed: int = 0,
        epochs: int | None = None,
    ) -> None:
        """Rows of `sources`, each of one store and without end, at `rates` in examples.

        Raises: ConfigError for a rate so small that the dataset would have no row in an epoch.
        """
        self.sources = tuple(sources)
        self.stores = tuple(store for source in sources for store in source.stores)
        self.epochs = epochs
        self.seed = seed
        rows = np.array([source.num_rows for source in sources], dtype=np.float64)
        examples = np.array([len(source.examples) for source in sources], dtype=np.float64)
        self.rows_per_epoch = apportion(np.asarray(rates) * rows / examples, int(rows.sum()))
        for store, count, rate in zip(self.stores, self.rows_per_epoch, rates, strict=True):
            if not count:
                raise ConfigError(
                    "rate is too small: the dataset would have no row in an epoch",
                    got=rate,
                    at=f"task {store.name}",
                    do="raise it, or leave the task out",
                )
        self._order = lru_cache(maxsize=4)(self._make_order)

    @property
    def row_length(self) -> int:
        """Tokens in a row."""
        return self.sources[0].row_length

    @property
    def num_rows(self) -> int:
        """Rows in one epoch."""
        return int(self.rows_per_epoch.sum())

    def at(self, numbers: Int[np.ndarray, "B"]) -> Rows:
        """The stream's rows of these numbers, each int32[B, T]; padding past the last epoch."""
        which, places = self._draw(numbers)
        out = self.sources[0].at(np.full(len(numbers), -1))  # padding
        for index in np.unique(which[which >= 0]).tolist():
            mine = which == index
            for name, rows in self.sources[index].at(places[mine]).items():
                out[name][mine] = rows
        return out

    def composition(self, num_rows: int | None = None) -> list[DatasetShare]:
        """What the first `num_rows` rows hold of each store; None: of one epoch."""
        epoch, rest = divmod(self.num_rows if num_rows is None else num_rows, self.num_rows)
        last = np.bincount(self._order(epoch)[0][:rest], minlength=len(self.sources))
        rows = epoch * self.rows_per_epoch + last
        return [
            share
            for source, count in zip(self.sources, rows.tolist(), strict=True)
            for share in source.composition(count)
        ]

    def _draw(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each row its dataset, and its number in the dataset's own stream; -1 past the end."""
        drawn = np.full((2, len(numbers)), -1, dtype=np.int64)
        for i, (epoch, index) in enumerate(zip(*divmod(numbers, self.num_rows), strict=True)):
            if self.epochs is None or epoch < self.epochs:
                which, rank = self._order(int(epoch))
                drawn[:, i] = which[index], epoch * self.rows_per_epoch[which[index]] + rank[index]
        return drawn[0], drawn[1]

    def _make_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's rows: the dataset of each, and how many of that dataset come before it."""
        which = np.repeat(np.arange(len(self.sources)), self.rows_per_epoch)
        rank = np.concatenate([np.arange(count) for count in self.rows_per_epoch])
        bits = np.random.Philox(key=[self.seed, _ORDER_STREAM + epoch])
        within = np.random.Generator(bits).random(len(which))
        # Row i of n of a dataset falls at random into the i-th of n equal parts of the epoch.
        order = np.argsort((rank + within) / self.rows_per_epoch[which], kind="stable")
        return which[order].astype(np.int32), rank[order]


def apportion(weights: Float[np.ndarray, "datasets"], total: int) -> Int[np.ndarray, "datasets"]:
    """Whole numbers in the proportion of `weights` that add up to `total`, by largest remainder.

    >>> apportion(np.array([3.0, 1.0, 1.0]), 11)
    array([7, 2, 2])
    """
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(np.int64)
    rest = np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]
    counts[rest] += 1
    return counts


def make_rated_rows(
    stores: Sequence[Store],
    *,
    examples: Sequence[Int[np.ndarray, "examples"]],
    rates: Sequence[float],
    seeds: Sequence[int],
    row_length: int,
    packing: PackingMode = "best_fit",
    seed: int = 0,
    epochs: int | None = None,
) -> RatedRows:
    """Rows of the chosen examples of each store, at these rates; `seeds` order each dataset."""
    sources = [
        make_rows([store], examples=chosen, row_length=row_length, packing=packing, seed=own)
        for store, chosen, own in zip(stores, examples, seeds, strict=True)
    ]
    return RatedRows(sources, rates, seed=seed, epochs=epochs)
