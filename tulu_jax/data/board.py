"""The progress display of `tulu data prepare`: what is read and encoded, dataset by dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
)

from tulu_jax.console import plain_console, task_name
from tulu_jax.data.specs import DatasetSpec


class Board(Progress):
    """Two bars a dataset: conversations read from raw files, and conversations encoded.

    `read[i]` is how many were read of dataset i; other processes may be counting there.
    """

    def __init__(self, read: Sequence[int]) -> None:
        """A display without bars."""
        self._read = read
        self._reading: dict[int, TaskID] = {}
        super().__init__(
            task_name(),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=plain_console(),
        )

    def add_reading(self, spec: DatasetSpec, number: int) -> None:
        """Shows how far the raw files of dataset `number` are read."""
        expected = sum(spec.expected_examples.values()) or None
        self._reading[number] = self.add_task(f"{spec.task_name} reading", total=expected)

    def add_split(self, spec: DatasetSpec, split: str) -> TaskID:
        """Shows how far a split is encoded."""
        self._settle_readings(spec)
        expected = spec.expected_examples.get(split)
        return self.add_task(f"{spec.task_name} {split}", total=expected)

    def show(self, bar: TaskID, count: int) -> None:
        """So many conversations of the split are encoded."""
        self.update(bar, completed=count)

    def finish(self, bar: TaskID, count: int) -> None:
        """The split held so many."""
        self.update(bar, completed=count, total=count)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn, with the counts of this moment."""
        for number, bar in self._reading.items():
            if not self._tasks[bar].finished:
                self.update(bar, completed=self._read[number])
        return super().get_renderables()

    def _settle_readings(self, spec: DatasetSpec) -> None:
        for number, bar in self._reading.items():
            if self._tasks[bar].description == f"{spec.task_name} reading":
                self.update(bar, completed=self._read[number], total=self._read[number])
