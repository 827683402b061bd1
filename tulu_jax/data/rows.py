"""Rows: the batch of any step, as a pure function of (seed, step)."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from tulu_jax.data.packing import PackingMode, PackingPlan, pack
from tulu_jax.data.store import Store
from tulu_jax.errors import ConfigError, DataError

Rows = dict[str, np.ndarray]

PAD_TOKEN = 0
"""The token of padding positions: never read, as their segment is 0, but always a valid id."""


@dataclass(frozen=True)
class DatasetShare:
    """One dataset's share of some rows.

    Of its `available` examples they show `examples`, counted as often as each is shown, with so
    many `tokens`, of which `loss_tokens` are trained.
    """

    task: str
    available: int
    examples: int
    tokens: int
    loss_tokens: int

    @property
    def epochs(self) -> float:
        """How often each example is shown, on average."""
        return self.examples / self.available if self.available else 0.0


class RowStream(ABC):
    """Rows numbered from 0 on, of which each batch takes the next: what a loader reads."""

    stores: tuple[Store, ...]
    epochs: int | None

    @property
    @abstractmethod
    def row_length(self) -> int:
        """Tokens in a row."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Rows in one epoch."""

    @abstractmethod
    def at(self, numbers: Int[np.ndarray, "B"]) -> Rows:
        """The stream's rows of these numbers, each int32[B, T]; padding past the last epoch."""

    @abstractmethod
    def composition(self, num_rows: int | None = None) -> list[DatasetShare]:
        """What the first `num_rows` rows hold of each store; None: of one epoch."""

    def num_steps(self, batch_size: int) -> int | None:
        """Batches that hold all epochs, the last one filled up with padding rows; None: no end."""
        return None if self.epochs is None else -(-self.epochs * self.num_rows // batch_size)

    def batch(
        self, step: int, batch_size: int, *, process_index: int = 0, process_count: int = 1
    ) -> Rows:
        """The batch's rows for this host: `tokens, loss_mask, segment_ids, positions`, int32[B, T].

        Host i of n takes the i-th of n equal shares of the batch; the shares of all hosts, one
        after the other, are the same batch for any number of hosts.

        Raises: ConfigError when the batch does not divide among the hosts.
        """
        return self.at(_host_numbers(step, batch_size, process_index, process_count))


class RowSource(RowStream):
    """Packed rows over the examples of one or several stores, in an order fixed by the seed.

    Global row g = step x batch size + j is row `permutation(seed, epoch)[g mod R]` of epoch
    g // R, R being the number of rows. So the batch of a step can be made without those before
    it, and every example is seen once per epoch. Rows past the last epoch are padding.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        plan: PackingPlan,
        *,
        examples: Int[np.ndarray, "examples"] | None = None,
        seed: int = 0,
        epochs: int | None = None,
    ) -> None:
        """Rows of `plan`, whose example i is example `examples[i]` of the concatenated stores."""
        sizes = [len(store) for store in stores]
        total = sum(sizes)
        self.stores = tuple(stores)
        self.plan = plan
        self.examples = np.arange(total) if examples is None else np.asarray(examples)
        if len(self.examples) != len(plan.examples):
            got = f"{len(plan.examples)} packed, {len(self.examples)} chosen"
            raise DataError("packing plan is not of these examples", got=got)
        if plan.num_rows == 0:
            raise DataError("no rows", got="0 examples", at=", ".join(s.name for s in stores))
        self.seed = seed
        self.epochs = epochs
        self._store_starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._lengths = np.concatenate([store.lengths for store in stores])
        self._permutation = lru_cache(maxsize=4)(self._make_permutation)

    @property
    def row_length(self) -> int:
        """Tokens in a row."""
        return self.plan.row_length

    @property
    def num_rows(self) -> int:
        """Rows in one epoch."""
        return self.plan.num_rows

    def at(self, numbers: Int[np.ndarray, "B"]) -> Rows:
        """The stream's rows of these numbers, each int32[B, T]; padding past the last epoch."""
        return self.rows(self._plan_rows(numbers))

    def composition(self, num_rows: int | None = None) -> list[DatasetShare]:
        """What the first `num_rows` rows hold of each store; None: of one epoch."""
        epoch, rest = divmod(self.num_rows if num_rows is None else num_rows, self.num_rows)
        shown = np.full(self.num_rows, epoch, dtype=np.int64)
        shown[self.epoch_rows(epoch)[:rest]] += 1
        times = np.repeat(shown, np.diff(self.plan.starts))
        chosen = self.examples[self.plan.examples]
        which = self._store_of(chosen)
        loss_tokens = np.concatenate([store.loss_tokens for store in self.stores])[chosen]

        def total(weights: np.ndarray) -> list[int]:
            counts = np.bincount(which, weights, minlength=len(self.stores))
            return counts.astype(np.int64).tolist()

        columns = (np.ones_like(times), times, times * self._lengths[chosen], times * loss_tokens)
        return [
            DatasetShare(store.name, *counts)
            for store, *counts in zip(self.stores, *map(total, columns), strict=True)
        ]

    def epoch_rows(self, epoch: int) -> Int[np.ndarray, "rows"]:
        """The plan's row numbers in the order of this epoch (0 is the first)."""
        return self._permutation(epoch)

    def row(self, index: int) -> Rows:
        """The plan's row `index` (not the order of an epoch), each int32[T].

        A row of 8 with examples of 3 and 4 tokens, of which 1 and 2 carry loss:

            tokens       1 51 60 |  1 52 61 62 |  0
            loss_mask    0  0  1 |  0  0  1  1 |  0
            segment_ids  1  1  1 |  2  2  2  2 |  0
            positions    0  1  2 |  0  1  2  3 |  0
        """
        return {name: value[0] for name, value in self.rows(np.array([index])).items()}

    def rows(self, numbers: Int[np.ndarray, "B"]) -> Rows:
        """The plan's rows of these numbers, each int32[B, T]; number -1 is a row of padding."""
        examples, filled, segments = self._layout(numbers)
        tokens, loss_mask, lengths = self._gather(self.examples[examples])
        # A row's examples lie side by side from its start: the filled positions, in order, are
        # the tokens in order. A boolean mask is three times as fast here as index arithmetic.
        taken = np.arange(self.row_length) < filled[:, None]
        return {
            "tokens": _place(tokens, taken, PAD_TOKEN),
            "loss_mask": _place(loss_mask, taken, 0),
            "segment_ids": _place(np.repeat(segments, lengths), taken, 0),
            "positions": _place(_within(lengths), taken, 0),
        }

    def _plan_rows(self, numbers: np.ndarray) -> np.ndarray:
        return np.array([self._plan_row(number) for number in numbers.tolist()], dtype=np.int64)

    def _plan_row(self, number: int) -> int:
        epoch, index = divmod(number, self.num_rows)
        if number < 0 or (self.epochs is not None and epoch >= self.epochs):
            return -1
        return int(self._permutation(epoch)[index])

    def _make_permutation(self, epoch: int) -> np.ndarray:
        return epoch_order(self.num_rows, seed=self.seed, epoch=epoch)

    def _layout(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The examples of these rows, the tokens in each row, each example's segment number."""
        groups = [self.plan.row(n) if n >= 0 else self.plan.examples[:0] for n in numbers.tolist()]
        counts = np.array([len(group) for group in groups], dtype=np.int64)
        examples = np.concatenate(groups)
        ends = np.concatenate([[0], np.cumsum(self._lengths[self.examples[examples]])])
        bounds = np.concatenate([[0], np.cumsum(counts)])
        return examples, np.diff(ends[bounds]), _within(counts) + 1

    def _gather(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens, masks and lengths of these examples of the concatenated stores, in order."""
        if len(self.stores) == 1:
            got = self.stores[0].gather(examples)
            return got.tokens, got.loss_mask, got.lengths
        which = self._store_of(examples)
        lengths = self._lengths[examples]
        owner = np.repeat(which.astype(np.int16), lengths)
        tokens, loss_mask = np.empty(len(owner), np.int32), np.empty(len(owner), bool)
        for number, store in enumerate(self.stores):
            got = store.gather(examples[which == number] - self._store_starts[number])
            mine = owner == number
            tokens[mine], loss_mask[mine] = got.tokens, got.loss_mask
        return tokens, loss_mask, lengths

    def _store_of(self, examples: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._store_starts, examples, side="right") - 1


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> Int[np.ndarray, "rows"]:
    """The numbers of a plan's rows in the order of an epoch (0 is the first)."""
    # Stream 0 of the seed belongs to packing; an epoch's stream is 1 + epoch.
    bits = np.random.Philox(key=[seed, 1 + epoch])
    return np.random.Generator(bits).permutation(num_rows)


def _host_numbers(
    step: int, batch_size: int, process_index: int, process_count: int
) -> Int[np.ndarray, "B"]:
    """The numbers of the rows that this host reads for a step."""
    if batch_size % process_count or not 0 <= process_index < process_count:
        raise ConfigError(
            "batch does not divide among the hosts",
            got=f"{batch_size} rows, host {process_index} of {process_count}",
            expected=f"a multiple of {process_count}",
            do="change BATCH_SIZE",
        )
    share = batch_size // process_count
    first = step * batch_size + process_index * share
    return np.arange(first, first + share, dtype=np.int64)


def _place(values: np.ndarray, taken: np.ndarray, fill: int) -> Int[np.ndarray, "B T"]:
    """`values`, in order, at the positions where `taken`; `fill` elsewhere."""
    out = np.full(taken.shape, fill, dtype=np.int32)
    out[taken] = values
    return out


def _within(lengths: np.ndarray) -> Int[np.ndarray, "total"]:
    """0, 1, ... n - 1 for each length n, one after the other.

    >>> _within(np.array([3, 2]))
    array([0, 1, 2, 0, 1], dtype=int32)
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    starts = np.repeat((ends - lengths).astype(np.int32), lengths)
    return np.arange(total, dtype=np.int32) - starts


def choose_heldout(
    store: Store,
    count: int,
    *,
    seed: int,
    among: Int[np.ndarray, "examples"] | None = None,
) -> tuple[Int[np.ndarray, "kept"], Int[np.ndarray, "heldout"]]:
    """Example numbers to train on and to hold out: the `count` first by a seeded hash of their id.

    They are chosen from `among`, by default all of the store.

    Raises: ConfigError when nothing would be left to train on.
    """
    among = np.arange(len(store)) if among is None else among
    if count >= len(among):
        raise ConfigError(
            "heldout_examples takes all there is",
            got=count,
            at=f"task {store.name} with {len(among)} examples",
            expected=f"at most {len(among) - 1}",
        )
    names = store.ids
    order = among[_hashed_order([f"{seed} {names[i]}" for i in among.tolist()])]
    return np.sort(order[count:]), np.sort(order[:count])


def choose_examples(
    ids: Sequence[str], among: Int[np.ndarray, "examples"], count: int, *, seed: int
) -> Int[np.ndarray, "chosen"]:
    """At most `count` of the example numbers `among`: the first by a seeded hash of their id.

    So the choice depends on no other example, and a smaller `count` chooses some of the same.
    """
    order = _hashed_order([f"{seed} choice {ids[i]}" for i in among.tolist()])
    return np.sort(among[order[:count]])


def _hashed_order(names: list[str]) -> Int[np.ndarray, "names"]:
    keys = [hashlib.sha256(name.encode()).digest() for name in names]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def make_rows(
    stores: Sequence[Store],
    *,
    row_length: int,
    packing: PackingMode = "best_fit",
    examples: Int[np.ndarray, "examples"] | None = None,
    seed: int = 0,
    epochs: int | None = None,
) -> RowSource:
    """Rows over the chosen examples (default all) of the concatenated stores."""
    lengths = np.concatenate([store.lengths for store in stores])
    if examples is not None:
        lengths = lengths[examples]
    plan = pack(lengths, row_length, mode=packing, seed=seed)
    return RowSource(stores, plan, examples=examples, seed=seed, epochs=epochs)
