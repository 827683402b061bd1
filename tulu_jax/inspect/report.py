"""Reports of what a run will train on, dataset by dataset, before it is paid for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tulu_jax.console import print_line
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import TrainingData
from tulu_jax.data.exclude import Exclusion, excluded_text
from tulu_jax.data.faults import unused_lines
from tulu_jax.data.packing import PackingMode, pack
from tulu_jax.data.rows import RowStream
from tulu_jax.data.specs import short_name
from tulu_jax.data.store import Store
from tulu_jax.data.tally import loss_share_alarm
from tulu_jax.inspect.table1 import LLAMA_PIECES, PAPER, Table1Row
from tulu_jax.inspect.tables import plain_table, short_count


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """One dataset's counts. Lengths are in tokens; shares are 0 to 1.

    `read` conversations gave `examples`, of which `truncated` were cut at max_length; the others
    were dropped because no token of theirs carries loss. `expected` is the upstream count.
    `skipped` records could not be read; `left_out` ones are not of the dataset, by reason.
    `answers` counts them (`parts.count_answers`); `unused` are lines about fields not used.
    `excluded` were left out by exclude files, by reason: examples, tokens and lengths are of the
    others.
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
    skipped: int = 0
    skipped_messages: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The task, its prefix left out, and the split."""
        return f"{short_name(self.task)} {self.split}"

    @property
    def loss_share(self) -> float:
        """Loss tokens per token."""
        return self.loss_tokens / self.tokens if self.tokens else 0.0

    def as_json(self) -> dict[str, Any]:
        """The counts as plain values."""
        return {**asdict(self), "loss_share": self.loss_share}


@dataclass(frozen=True, kw_only=True)
class MixtureReport:
    """An epoch of a mixture: rows, how full they are, and each dataset's part."""

    row_length: int
    rows: int
    steps: int | None
    efficiency: float
    datasets: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def dataset_report(
    stores: Sequence[Store],
    *,
    row_length: int,
    packing: PackingMode = "best_fit",
    exclusion: Exclusion | None = None,
) -> list[DatasetReport]:
    """The counts of each store, with the packing it would have on its own.

    What `exclusion` names is not counted.
    """
    exclusion = exclusion or Exclusion()
    return [_report(store, row_length, packing, exclusion) for store in stores]


def mixture_report(
    rows: RowStream, *, batch_size: int, exclusion: Exclusion | None = None
) -> MixtureReport:
    """Each dataset's part of one epoch of the rows, and the steps of all epochs."""
    exclusion = exclusion or Exclusion()
    excluded = [exclusion.select(store).excluded for store in rows.stores]
    shares = rows.composition()
    tokens = sum(share.tokens for share in shares)
    loss_tokens = sum(share.loss_tokens for share in shares)
    return MixtureReport(
        row_length=rows.row_length,
        rows=rows.num_rows,
        steps=rows.num_steps(batch_size),
        efficiency=tokens / max(rows.num_rows * rows.row_length, 1),
        datasets=[
            {
                "task": share.task,
                "available": share.available,
                "examples": share.examples,
                "epochs": share.epochs,
                "tokens": share.tokens,
                "token_share": share.tokens / max(tokens, 1),
                "loss_tokens": share.loss_tokens,
                "loss_token_share": share.loss_tokens / max(loss_tokens, 1),
                "excluded": reasons,
            }
            for share, reasons in zip(shares, excluded, strict=True)
        ],
    )


def print_training_data(data: TrainingData, config: DataConfig, console: Console) -> None:
    """Prints what a run is about to train on, and what is to be known about it."""
    reports = dataset_report(
        data.stores,
        row_length=config.length,
        packing=config.packing,
        exclusion=data.exclusion,
    )
    console.print(report_table(reports))
    for report in reports:
        for line in report.unused:
            print_line(console, f"{report.name}: {line}")
    if len(data.stores) > 1:
        mixed = mixture_report(data.train, batch_size=config.batch_size, exclusion=data.exclusion)
        console.print(mixture_table(mixed))
    for note in data.notes:
        print_line(console, note, style="yellow")


def report_table(reports: Sequence[DatasetReport]) -> Table:
    """The reports as a table; shares outside 2 % to 98 % are marked."""
    columns = ("examples", "tokens", "loss", "cut", "dropped", "50/95/100 %", "full")
    table = plain_table("dataset", *columns, padding=(0, 0))
    notes = ["loss: share of tokens that carry it", "50/95/100 %: so many are no longer than"]
    for report in reports:
        style = "bold red" if loss_share_alarm(report.loss_share) else ""
        share = Text(f"{report.loss_share:.1%}", style)
        notes += _notes(report)
        table.add_row(
            report.name,
            f"{report.examples:,}",
            short_count(report.tokens),
            share,
            f"{report.truncated:,}",
            f"{sum(report.dropped.values()):,}",
            f"{report.median_length}/{report.p95_length}/{report.max_length}",
            f"{report.efficiency:.1%}",
        )
    table.caption = "\n".join(notes)
    return table


def _notes(report: DatasetReport) -> list[str]:
    notes = []
    if loss_share_alarm(report.loss_share):
        notes.append(f"ALARM {report.name}: a share of {report.loss_share:.2%} is unusual")
    if report.expected is not None and report.read != report.expected:
        notes.append(f"{report.name}: {report.read:,} of {report.expected:,} upstream rows")
    notes += [f"{report.name}: {n:,} dropped, {why}" for why, n in report.dropped.items()]
    notes += [f"{report.name}: {n:,} left out, {why}" for why, n in report.left_out.items()]
    notes += [f"{report.name}: {line}" for line in answer_lines(report.answers)]
    if report.excluded:
        notes.append(f"{report.name}: {excluded_text(report.excluded)}")
    if report.skipped:
        notes.append(f"{report.name}: {report.skipped:,} records skipped that could not be read")
    return notes


def answer_lines(answers: Mapping[str, int]) -> list[str]:
    """What is unusual about the answers that `parts.count_answers` counted, a line each.

    >>> answer_lines({"trained": 40, "empty": 3, "not trained": 0})
    ['3 of 40 answers are empty or blank: nothing but their end is trained']
    """
    trained, empty = answers.get("trained", 0), answers.get("empty", 0)
    flagged = answers.get("not trained", 0)
    lines = []
    if flagged:
        what = "answers are not trained, as their records say"
        lines.append(f"{flagged:,} of {trained + flagged:,} {what}")
    if empty:
        what = "answers are empty or blank: nothing but their end is trained"
        lines.append(f"{empty:,} of {trained:,} {what}")
    if markers := answers.get("markers", 0):
        what = "have markers of a chat format as text (<|user|>, [INST], </s>, ...): the format"
        lines.append(f"{markers:,} messages {what} is put around them once more")
    return lines


def mixture_table(report: MixtureReport) -> Table:
    """An epoch's composition as a table."""
    columns = ("examples", "epochs", "tokens", "share", "loss tokens", "share")
    table = plain_table("an epoch", *columns)
    for one in report.datasets:
        table.add_row(
            short_name(one["task"]),
            f"{one['examples']:,}",
            f"{one['epochs']:.3g}",
            short_count(one["tokens"]),
            f"{one['token_share']:.1%}",
            short_count(one["loss_tokens"]),
            f"{one['loss_token_share']:.1%}",
        )
    steps = "" if report.steps is None else f"; {report.steps:,} steps in all"
    rows = f"{report.rows:,} rows of {report.row_length}, {report.efficiency:.2%} full{steps}"
    notes = [
        f"{short_name(one['task'])}: {excluded_text(one['excluded'])}"
        for one in report.datasets
        if one["excluded"]
    ]
    table.caption = "\n".join([rows, *notes])
    return table


def table1(
    ours: Mapping[str, Table1Row | None], datasets: Mapping[str, str], *, vocab_size: int
) -> Table:
    """The paper's Table 1 by task, ours beside the paper's; `datasets` has each task's dataset."""
    columns = ("instances", "rounds", "prompt", "answer")
    table = plain_table("Table 1", *columns, padding=(0, 0))
    for name in ("paper", "rounds", "prompt", "answer"):
        table.add_column(name, justify="right", no_wrap=True, style="dim")
    for task, row in ours.items():
        table.add_row(short_name(task), *_cells(row), *_cells(PAPER.get(datasets[task])))
    notes = ["prompt, answer: mean tokens of a message; paper: its Table 1, written from memory"]
    if vocab_size not in (LLAMA_PIECES, LLAMA_PIECES + 1):
        notes.append("the paper's lengths are by LLaMA's tokenizer, ours by the one given")
    if None in ours.values():
        notes.append("without numbers: no raw files (name their folder with --raw_dir)")
    table.caption = "\n".join(notes)
    return table


def _cells(row: Table1Row | None) -> list[str]:
    if row is None:
        return ["", "", "", ""]
    return [f"{row.instances:,}", f"{row.rounds:.2f}", f"{row.prompt:.1f}", f"{row.completion:.1f}"]


def _report(
    store: Store, row_length: int, packing: PackingMode, exclusion: Exclusion
) -> DatasetReport:
    counts = store.meta["counts"]
    kept, excluded = exclusion.keep(store), exclusion.select(store).excluded
    lengths = store.lengths[kept]
    plan = pack(lengths, row_length, mode=packing)
    return DatasetReport(
        task=store.name,
        split=store.meta["split"],
        read=counts["read"],
        expected=store.meta["expected_examples"],
        examples=len(lengths),
        truncated=counts["truncated"],
        dropped=counts["dropped"],
        tokens=int(lengths.sum()),
        loss_tokens=int(store.loss_tokens[kept].sum()),
        median_length=int(np.median(lengths)),
        p95_length=int(np.percentile(lengths, 95)),
        max_length=int(lengths.max()),
        efficiency=plan.efficiency,
        skipped=counts.get("skipped", 0),
        skipped_messages=list(counts.get("messages", [])),
        left_out=dict(counts.get("left_out", {})),
        answers=dict(counts.get("answers", {})),
        unused=unused_lines(counts),
        excluded=excluded,
    )
