"""The packing plan beside two plain ways to pack, on lengths like the paper's, in one run.

    python benchmarks/packing.py [--examples 500000 15000000] [--peer_limit 500000]

Lengths: lognormal for each of the twelve datasets, with the mean of the paper's Table 1 (rounds x
(prompt + completion), and the template's tokens), in its proportions, cut at 2,048. Each way packs
in a process of its own, whose peak memory is reported with NumPy and the lengths in it. `bisect`
is best-fit decreasing as usually written, one example after the other over a sorted list of
spaces; `in order` closes a row when the next example does not fit.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

ROW_LENGTH = 2048
TEMPLATE_TOKENS = 14
"""The roles' headings and line ends that the chat format adds to a round."""

TABLE_1 = (
    (96_913, 1.0, 291.1, 38.7),
    (100_000, 1.0, 266.0, 53.2),
    (100_000, 1.0, 355.7, 31.2),
    (15_011, 1.0, 118.1, 91.3),
    (34_795, 1.6, 34.8, 212.5),
    (82_439, 1.0, 41.5, 29.3),
    (68_478, 1.0, 107.8, 23.6),
    (52_002, 1.0, 27.8, 64.6),
    (20_022, 1.0, 35.6, 67.8),
    (52_002, 1.0, 28.0, 161.8),
    (210_311, 3.1, 17.6, 52.8),
    (168_864, 3.2, 71.0, 357.8),
)
"""Instances, rounds, prompt and completion tokens of each dataset."""

SPREAD = 0.8
"""Standard deviation of the logarithm of a length, about that of Alpaca's and ShareGPT's."""


def make_lengths(count: int) -> np.ndarray:
    """`count` lengths in tokens, shuffled."""
    rng = np.random.default_rng(0)
    sizes = np.array([row[0] for row in TABLE_1], float)
    means = np.array([row[1] * (row[2] + row[3] + TEMPLATE_TOKENS) for row in TABLE_1])
    which = rng.choice(len(TABLE_1), count, p=sizes / sizes.sum()).astype(np.int8)
    lengths = rng.lognormal(-(SPREAD**2) / 2, SPREAD, count).astype(np.float32)
    lengths *= means.astype(np.float32)[which]
    return lengths.clip(8, ROW_LENGTH).astype(np.int32)


def ours(lengths: np.ndarray) -> int:
    """The number of rows of our plan."""
    from tulu_jax.data.packing import pack

    return pack(lengths, ROW_LENGTH).num_rows


def bisected(lengths: np.ndarray) -> int:
    """The number of rows of best-fit decreasing over a sorted list of (space, row)."""
    order = np.argsort(-lengths, kind="stable").tolist()
    sizes = lengths.tolist()
    spaces: list[tuple[int, int]] = []
    rows: list[list[int]] = []
    for example in order:
        size = sizes[example]
        at = bisect.bisect_left(spaces, (size, 0))
        if at < len(spaces):
            space, row = spaces.pop(at)
        else:
            space, row = ROW_LENGTH, len(rows)
            rows.append([])
        rows[row].append(example)
        if space > size:
            bisect.insort(spaces, (space - size, row))
    return len(rows)


def in_order(lengths: np.ndarray) -> int:
    """The number of rows when examples are taken as they come."""
    rows: list[list[int]] = [[]]
    space = ROW_LENGTH
    for example, size in enumerate(lengths.tolist()):
        if size > space:
            rows.append([])
            space = ROW_LENGTH
        rows[-1].append(example)
        space -= size
    return len(rows)


WAYS: dict[str, Callable[[np.ndarray], int]] = {
    "ours": ours, "bisect": bisected, "in order": in_order,
}  # fmt: skip


def work(name: str, count: int) -> None:
    """Packs once and prints time, fill and memory as JSON."""
    lengths = make_lengths(count)
    if name == "ours":
        ours(lengths[:10])  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    rows = WAYS[name](lengths)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    full = int(lengths.sum(dtype=np.int64)) / (rows * ROW_LENGTH)
    print(json.dumps({"s": seconds, "rows": rows, "full": full, "rss": peak, "before": before}))


def main() -> None:
    """Packs in every way, in turn, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, nargs="+", default=[500_000, 15_000_000])
    parser.add_argument("--peer_limit", type=int, default=500_000, help="peers pack no more")
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.examples[0])
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, T={ROW_LENGTH}")
    print("| way | examples | s | rows | full | peak RSS MiB (before packing) |")
    print("|---|---|---|---|---|---|")
    for count in args.examples:
        for name in WAYS if count <= args.peer_limit else ["ours"]:
            command = [sys.executable, __file__, "--worker", name, "--examples", str(count)]
            got = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(
                f"| {name} | {count:,} | {got['s']:.2f} | {got['rows']:,} | {got['full']:.2%} | "
                f"{got['rss']:.0f} ({got['before']:.0f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
