"""What a run will train on, dataset by dataset, before it is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tulu_jax.data.packing import PackingMode, pack
from tulu_jax.data.prepare import loss_share_alarm
from tulu_jax.data.store import Store


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """One dataset's counts. Lengths are in tokens; shares are 0 to 1.

    `read` conversations gave `examples`, of which `truncated` were cut at max_length; the others
    were dropped because no token of theirs carries loss. `expected` is the upstream count.
    """

    task: str
    split: str
    read: int
    expected: int | None
    examples: int
    truncated: int
    dropped: dict[str, int]
    tokens: int
    loss_tokens: int
    median_length: int
    p95_length: int
    max_length: int
    efficiency: float

    @property
    def name(self) -> str:
        """The task, its prefix left out, and the split."""
        return f"{self.task.removeprefix('tulu_')} {self.split}"

    @property
    def loss_share(self) -> float:
        """Loss tokens per token."""
        return self.loss_tokens / self.tokens if self.tokens else 0.0


def dataset_report(
    stores: Sequence[Store], *, row_length: int, packing: PackingMode = "best_fit"
) -> list[DatasetReport]:
    """The counts of each store, with the packing it would have on its own."""
    return [_report(store, row_length, packing) for store in stores]


def report_table(reports: Sequence[DatasetReport]) -> Table:
    """The reports as a table; shares outside 2 % to 98 % are marked."""
    table = Table(box=SIMPLE_HEAD, padding=0, caption_justify="left")
    table.add_column("dataset", style="bold", no_wrap=True)
    for name in ("examples", "tokens", "loss", "cut", "dropped", "50/95/100 %", "full"):
        table.add_column(name, justify="right", no_wrap=True)
    notes = ["loss: share of tokens that carry it", "50/95/100 %: so many are no longer than"]
    for report in reports:
        share = f"{report.loss_share:.1%}"
        if loss_share_alarm(report.loss_share):
            share = f"[bold red]{share}[/]"
            notes.append(f"ALARM {report.name}: a share of {report.loss_share:.2%} is unusual")
        if report.expected is not None and report.read != report.expected:
            notes.append(f"{report.name}: {report.read:,} of {report.expected:,} upstream rows")
        notes += [f"{report.name}: {n:,} dropped, {why}" for why, n in report.dropped.items()]
        table.add_row(
            report.name,
            f"{report.examples:,}",
            _short(report.tokens),
            share,
            f"{report.truncated:,}",
            f"{sum(report.dropped.values()):,}",
            f"{report.median_length}/{report.p95_length}/{report.max_length}",
            f"{report.efficiency:.1%}",
        )
    table.caption = "\n".join(notes)
    return table


def _short(count: int) -> str:
    """A count in at most six characters: 950, 12.3k, 1.41M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _report(store: Store, row_length: int, packing: PackingMode) -> DatasetReport:
    counts = store.meta["counts"]
    lengths = store.lengths
    plan = pack(lengths, row_length, mode=packing)
    return DatasetReport(
        task=store.name,
        split=store.meta["split"],
        read=counts["read"],
        expected=store.meta["expected_examples"],
        examples=len(store),
        truncated=counts["truncated"],
        dropped=counts["dropped"],
        tokens=int(lengths.sum()),
        loss_tokens=int(store.loss_tokens.sum()),
        median_length=int(np.median(lengths)),
        p95_length=int(np.percentile(lengths, 95)),
        max_length=int(lengths.max()),
        efficiency=plan.efficiency,
    )
