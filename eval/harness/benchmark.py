"""What a benchmark is: data to instances, answers to grades, grades to metrics.

A benchmark is one file, `eval/<name>/run_eval.py`, with a subclass of `Benchmark`; a *task* is a
benchmark with a named choice of its options, such as `gsm_cot`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from eval.harness.asks import Instance
from eval.harness.context import Context
from eval.harness.quirks import SHARED, Quirk
from eval.harness.statistics import mean, standard_error

Row = dict[str, Any]
"""A line of predictions.jsonl."""

Metrics = dict[str, Any]


class Item(NamedTuple):
    """A question as it stands in a benchmark's file, bare. `answer` is empty where it has none."""

    id: str
    prompt: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Headline:
    """The one number of a result, that tables show."""

    metric: str
    value: float
    stderr: float
    n: int
    unit: Literal["share", "percent"]


class Benchmark(ABC):
    """A benchmark; see the module. Subclasses are stateless."""

    name: ClassVar[str]
    title: ClassVar[str]
    """One line for `tulu eval list`."""
    options: ClassVar[type]
    """A frozen dataclass of its settings; their names are flags."""
    tasks: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Name of a task -> its options, where they are not the default."""
    own_quirks: ClassVar[tuple[Quirk, ...]] = ()
    data: ClassVar[str]
    """Its folder or file below the folder of all evaluation data."""
    data_flag: ClassVar[str] = "--data_dir"
    questions: ClassVar[int | None] = None
    """How many the whole file or folder has, as `items` counts; None where `notes` tells it."""
    metric: ClassVar[str]
    """What the headline is of: a metric of every instance."""
    unit: ClassVar[Literal["share", "percent"]] = "share"
    """Whether values run from 0 to 1 or from 0 to 100."""
    higher_is_better: ClassVar[bool] = True
    macro: ClassVar[bool] = False
    """Whether the headline is the mean over groups of their means, rather than over instances."""
    chats: ClassVar[bool] = True
    """Whether tuned models are asked in chat format."""
    needs: ClassVar[frozenset[str]] = frozenset({"generate"})
    """What a backend must be able to do: generate, choose, weigh."""

    @property
    def quirks(self) -> tuple[Quirk, ...]:
        """Every quirk that concerns it."""
        return (*SHARED, *self.own_quirks)

    def task_of(self, options: Any) -> str:
        """The task that has these options, or else the benchmark's name."""
        for name, chosen in self.tasks.items():
            if self.options(**chosen) == options:
                return name
        return self.name

    def check(self, context: Context) -> None:
        """Refuses a run that cannot end well, before anything is read.

        Raises:
          ConfigError: such as code to run where that is not allowed.
        """

    @abstractmethod
    def load(self, context: Context) -> list[Instance]:
        """The instances, in order.

        Raises:
          DataError: data that is missing or damaged.
        """

    def items(self, data: Path) -> Iterable[Item]:
        """All questions of its folder or file: what `tulu data check` looks for in training data.

        Raises:
          DataError: as `load`.
        """
        return ()

    def judges(self, options: Any) -> list[str]:
        """The judges that its options name: model folders, models of an endpoint, files."""
        return []

    def notes(self, instances: Sequence[Instance], context: Context) -> list[str]:
        """What is to be said of the instances before any is asked."""
        return []

    @abstractmethod
    def grade(self, row: Row, context: Context) -> Row:
        """Fields to add to an answered row: `prediction`, and `correct` or `score`.

        The row has `id`, `prompt`, `gold`, the instance's data, `output` and the rest of the
        answer. `extracted` false says that no answer was found in the output.
        """

    def grade_all(self, rows: Sequence[Row], context: Context) -> list[Row]:
        """`grade` of every row, in order; overridden where that is better done together."""
        return [self.grade(row, context) for row in rows]

    @abstractmethod
    def metrics(self, rows: Sequence[Row], context: Context) -> Metrics:
        """The reference's metrics of graded rows, with its keys."""

    def remarks(self, rows: Sequence[Row], metrics: Metrics, context: Context) -> list[str]:
        """What is to be said of graded rows and their metrics; results and reports show it."""
        return []

    def write(self, rows: Sequence[Row], metrics: Metrics, folder: Path, context: Context) -> None:
        """Writes the reference's own files beside predictions.jsonl and metrics.json."""

    def scores(self, rows: Sequence[Row]) -> list[float]:
        """The headline's metric of each row."""
        return [float(row["correct"] if "correct" in row else row["score"]) for row in rows]

    def headline(self, rows: Sequence[Row], context: Context) -> Headline:
        """The number that tables show, with its standard error."""
        groups = by_group(rows) if self.macro else {"": list(rows)}
        found = [self._mean(members) for members in groups.values()]
        if not found:
            return Headline(self.metric, float("nan"), float("nan"), 0, self.unit)
        error = sum(error**2 for _, error in found) ** 0.5 / len(found)
        value = sum(value for value, _ in found) / len(found)
        return Headline(self.metric, value, error, len(rows), self.unit)

    def stderr(self, rows: Sequence[Row]) -> dict[str, float]:
        """The standard error of the headline's metric in every group."""
        return {name: self._mean(members)[1] for name, members in by_group(rows).items() if name}

    def _mean(self, rows: Sequence[Row]) -> tuple[float, float]:
        scores = self.scores(rows)
        return mean(scores), standard_error(scores, clusters_of(rows))


def by_group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their group, in the order in which groups first come; without one, by ''."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.get("group") or "", []).append(row)
    return found


def clusters_of(rows: Sequence[Row]) -> list[str] | None:
    """The cluster of every row, or None where none has one."""
    if not any("cluster" in row for row in rows):
        return None
    return [row.get("cluster", row["id"]) for row in rows]
