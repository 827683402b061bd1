"""Batches of packed rows from the store beside plain loaders of the same rows, in one run.

    python benchmarks/loader.py [--examples 100000] [--seconds 4]

The store holds random tokens in lengths like the paper's (see benchmarks/packing.py). A batch is
128 rows of 2,048 tokens with loss mask, segments and positions. `grain` maps each row number to
its row and batches; `torch` is a DataLoader, in this process or with two workers, over a dataset
that does the same; both take the examples from lists in memory, not from the store. Every loader
gives the same rows in the same order, which is compared first.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from packing import ROW_LENGTH, make_lengths

BATCH, VOCAB = 128, 32_000
Batch = dict[str, Any]


def write(folder: Path, count: int) -> Any:
    """A store of `count` random examples whose second half carries loss."""
    from tulu_jax.data.store import Example, write_store

    rng = np.random.default_rng(1)

    def examples() -> Iterator[Example]:
        for number, length in enumerate(make_lengths(count).tolist()):
            tokens = rng.integers(1, VOCAB, length, dtype=np.int32)
            yield Example(f"e{number}", tokens, np.arange(length) >= length // 2)

    meta = {"vocab_size": VOCAB, "task": "tulu_random"}
    return write_store(folder / "store", examples(), meta=meta)


class MemoryRows:
    """Rows made one by one from examples in memory, as a map-style dataset."""

    def __init__(self, rows: Any) -> None:
        """Reads all examples of the row source into lists."""
        self.examples = list(rows.stores[0])
        self.plan, self.order = rows.plan, rows.epoch_rows(0)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Batch:
        row = {
            name: np.zeros(ROW_LENGTH, np.int32)
            for name in ("tokens", "loss_mask", "segment_ids", "positions")
        }
        at = 0
        for segment, example in enumerate(self.plan.row(int(self.order[index])), start=1):
            tokens, mask = self.examples[example]
            place = slice(at, at + len(tokens))
            row["tokens"][place], row["loss_mask"][place] = tokens, mask
            row["segment_ids"][place] = segment
            row["positions"][place] = np.arange(len(tokens))
            at += len(tokens)
        return row


def ours(rows: Any, _: MemoryRows) -> Iterator[Batch]:
    """Our loader."""
    from tulu_jax.data.loader import open_batches

    return open_batches(rows, batch_size=BATCH)


def plain_grain(_: Any, memory: MemoryRows) -> Iterator[Batch]:
    """Grain's map and batch."""
    import grain.python as grain

    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * BATCH)
    source = grain.MapDataset.range(len(memory)).map(memory.__getitem__)
    return iter(source.batch(BATCH, drop_remainder=True).to_iter_dataset(options))


def torch_loader(workers: int) -> Callable[[Any, MemoryRows], Iterator[Batch]]:
    """torch's DataLoader with so many worker processes."""

    def loader(_: Any, memory: MemoryRows) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        warnings.filterwarnings("ignore")
        dataset: Any = memory
        return iter(DataLoader(dataset, BATCH, num_workers=workers, drop_last=True))

    return loader


LOADERS = {
    "ours": ours,
    "grain": plain_grain,
    "torch, no worker": torch_loader(0),
    "torch, 2 workers": torch_loader(2),
}


def rate(batches: Iterator[Batch], seconds: float, limit: int) -> tuple[float, float]:
    """Positions a second and, of these, those that hold a token, a second."""
    next(batches)
    start, count, filled = time.perf_counter(), 0, 0
    while time.perf_counter() - start < seconds and count < limit:
        batch = next(batches)
        count += 1
        filled += int(np.count_nonzero(np.asarray(batch["segment_ids"])))
    took = time.perf_counter() - start
    return count * BATCH * ROW_LENGTH / took, filled / took


def seek_times(store: Path) -> tuple[float, float, float]:
    """Milliseconds to open store and rows; median and longest from a step's number to its batch."""
    from tulu_jax.data.loader import open_batches
    from tulu_jax.data.rows import make_rows
    from tulu_jax.data.store import open_store

    start = time.perf_counter()
    rows = make_rows([open_store(store)], row_length=ROW_LENGTH, epochs=1000)
    opened = time.perf_counter() - start
    times = []
    for step in np.random.default_rng(2).integers(0, rows.num_steps(BATCH) - 1, 30).tolist():
        start = time.perf_counter()
        batches = open_batches(rows, batch_size=BATCH, start_step=step)
        next(batches)
        times.append(time.perf_counter() - start)
        batches.close()
    return 1000 * opened, 1000 * statistics.median(times), 1000 * max(times)


def main() -> None:
    """Measures every loader, twice and in turn, and prints the better rate of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    args = parser.parse_args()
    from tulu_jax.data.rows import make_rows

    with tempfile.TemporaryDirectory() as name:
        store = write(Path(name), args.examples)
        rows = make_rows([store], row_length=ROW_LENGTH)
        memory = MemoryRows(rows)
        first = [next(make(rows, memory)) for make in LOADERS.values()]
        for batch in first[1:]:
            assert all(np.array_equal(np.asarray(batch[k]), first[0][k]) for k in first[0])
        best: dict[str, tuple[float, float]] = {}
        for _ in range(2):
            for label, make in LOADERS.items():
                got = rate(make(rows, memory), args.seconds, len(memory) // BATCH - 1)
                best[label] = max(best.get(label, got), got)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, ", end="")
        print(f"batch {BATCH} x {ROW_LENGTH}, {args.examples:,} examples, ", end="")
        print(f"{rows.num_rows:,} rows, {rows.plan.efficiency:.1%} full")
        print("| loader | M tokens/s | ours is so many times as fast |")
        print("|---|---|---|")
        for label, (_, tokens) in best.items():
            print(f"| {label} | {tokens / 1e6:.1f} | {best['ours'][1] / tokens:.2f} |")
        opened, median, longest = seek_times(store.path)
        print(f"opening store and rows {opened:.0f} ms; any step: {median:.0f} ms median, ", end="")
        print(f"{longest:.0f} ms at most of 30 random steps of 1,000 epochs")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak RSS of the whole run {peak:.0f} MiB")


if __name__ == "__main__":
    main()
