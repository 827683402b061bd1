"""The paper's numbers, each row with where it was seen: `paper_results.csv` beside this file."""

from __future__ import annotations

import csv
import difflib
import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.report.tasks import AVERAGES, TASKS, Number
from tulu_jax.errors import ConfigError

PATH = Path(__file__).with_name("paper_results.csv")
DEFAULT = "tulu-7b"
"""The smallest model whose every number of the first version is known."""

DATA = {
    "super_ni": "SuperNI",
    "cot": "CoT",
    "flan_v2": "Flan V2",
    "dolly": "Dolly",
    "oasst1": "Open Assistant 1",
    "self_instruct": "Self-instruct",
    "unnatural_instructions": "Unnatural Instructions",
    "stanford_alpaca": "Alpaca",
    "code_alpaca": "Code-Alpaca",
    "gpt4_alpaca": "GPT4-Alpaca",
    "baize": "Baize",
    "sharegpt": "ShareGPT",
    "v1_human": "Human mix",
    "v1_human_gpt": "Human+GPT mix",
}
"""Our datasets and mixtures, without `tulu_`, by the paper's names."""


@dataclass(frozen=True)
class PaperRow:
    """A model of the paper. `numbers` by task and average, in per cent.

    An average is the printed one where it was seen, else computed from the row.
    """

    labels: tuple[str, ...]
    version: str
    base_model: str
    size: str
    data: str
    numbers: dict[str, Number]
    sources: tuple[str, ...]
    """The paper's tables that it stands in, how sure that is, and where it was seen."""

    @property
    def label(self) -> str:
        """The first of its names."""
        return self.labels[0]

    @property
    def title(self) -> str:
        """Its label and the paper's version."""
        return f"{self.label} ({self.version[:2]})"


@functools.cache
def paper_rows() -> tuple[PaperRow, ...]:
    """The models of which a number is known; what several tables say of one is one row."""
    models: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for record in read_records():
        named = [record[name] for name in ("paper_version", "base_model", "size", "data")]
        model = (*named, "" if record["size"] else record["label"])
        models.setdefault(model, []).append(record)
    rows = (_row(records) for records in models.values())
    return tuple(row for row in rows if row.numbers)


def read_records() -> list[dict[str, str]]:
    """The lines of the file by their columns."""
    with open(PATH, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _row(records: list[dict[str, str]]) -> PaperRow:
    numbers: dict[str, Number] = {}
    for record in records:
        for name, number in _numbers(record).items():
            numbers.setdefault(name, number)
    for average in AVERAGES:
        computed = average.of(numbers)
        if computed is not None:
            numbers.setdefault(average.name, computed)
    first = records[0]
    return PaperRow(
        labels=tuple(dict.fromkeys(record["label"] for record in records)),
        version=first["paper_version"],
        base_model=first["base_model"],
        size=first["size"],
        data=first["data"],
        numbers=numbers,
        sources=tuple(f"{r['table']}, {r['confidence']}: {r['source']}" for r in records),
    )


def _numbers(record: dict[str, str]) -> dict[str, Number]:
    """The numbers of a line by task, its average by that of its version."""
    numbers = {
        task.name: Number(float(record[task.column]), math.nan, task.paper_n)
        for task in TASKS.values()
        if task.column and record[task.column]
    }
    if record["average"]:
        average = next(a for a in AVERAGES if a.name.endswith(record["paper_version"][:2]))
        tasks = [task for benchmark in average.benchmarks for task in benchmark]
        n = sum(TASKS[task].paper_n or 0 for task in tasks)
        numbers[average.name] = Number(float(record["average"]), math.nan, n)
    return numbers


def chosen_rows(
    wanted: Sequence[str], models: Iterable[str], datasets: Iterable[str | None]
) -> list[PaperRow]:
    """The rows that stand beside these models.

    Args:
      wanted: labels of rows, or one word: `auto` takes the rows of the same name as a model, or
        trained on the same data as one, and the paper's Tulu 7B where there is none; `all`; `none`.
      models: the models' names.
      datasets: what they were trained on, where that is known.

    Raises: ConfigError for a label that no row has, with the nearest ones.
    """
    rows = paper_rows()
    if list(wanted) == ["none"]:
        return []
    if list(wanted) == ["all"]:
        return list(rows)
    if list(wanted) == ["auto"]:
        names = {_plain(name) for name in models}
        data = {paper_data(name) for name in datasets if name}
        same = [row for row in rows if names & set(map(_plain, row.labels)) or row.data in data]
        return same or [row for row in rows if row.label == DEFAULT]
    labels = {_plain(label): label for row in rows for label in row.labels}
    for label in wanted:
        if _plain(label) not in labels:
            near = difflib.get_close_matches(_plain(label), labels, n=3, cutoff=0.3)
            raise ConfigError("the paper has no row of this name", got=repr(label),
                              expected="auto, all, none, or a row's name",
                              do=f"the nearest are {', '.join(labels[n] for n in near)}"
                              if near else None)  # fmt: skip
    asked = {_plain(label) for label in wanted}
    return [row for row in rows if asked & set(map(_plain, row.labels))]


def paper_data(dataset: str) -> str:
    """The paper's name of a dataset or mixture of ours; any other is itself."""
    return DATA.get(dataset.removeprefix("tulu_"), dataset)


def _plain(name: str) -> str:
    """A name by its letters and digits: `Tulu 7B` and `tulu-7b` are the same."""
    return re.sub(r"[^a-z0-9.]+", "", name.lower())
