"""The findings of a check, as plain values that JSON can hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class FoundExample(NamedTuple):
    """One conversation that was found, and what about it."""

    id: str
    detail: str


@dataclass
class Found:
    """How many conversations of a dataset have something, and a few of them.

    `elsewhere`: of the copies, those whose original is in another dataset.
    """

    conversations: int = 0
    examples: list[FoundExample] = field(default_factory=list)
    elsewhere: int | None = None

    def add(self, example: FoundExample, worst: int) -> None:
        """Counts one conversation."""
        self.conversations += 1
        if len(self.examples) < worst:
            self.examples.append(example)


class SeenItem(NamedTuple):
    """One evaluation item, and the conversation that contains most of it."""

    item: str
    conversation: str
    coverage: float
    with_answer: bool
    prompt: str


@dataclass
class BenchmarkOverlap:
    """A dataset's overlap with a benchmark; `with_answer` are the items seen with their answers."""

    dataset: str
    benchmark: str
    items: int
    items_seen: int = 0
    with_answer: int = 0
    conversations: int = 0
    worst: list[SeenItem] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Items seen, of those that can be found."""
        return self.items_seen / self.items if self.items else 0.0


@dataclass
class DatasetFindings:
    """One dataset: its size, findings by kind, and languages with their conversations."""

    conversations: int = 0
    findings: dict[str, Found] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)


class Listed(NamedTuple):
    """One conversation to leave out of training; `reason` is a group of kinds, or a kind."""

    task: str
    id: str
    reason: str
    detail: str


@dataclass
class CheckReport:
    """All that was found. `shares` holds for each kind the share that --fail_above compares.

    `listed` are the conversations to exclude, in the order in which they were read.
    """

    mixture: str
    options: dict[str, Any]
    datasets: dict[str, DatasetFindings]
    overlap: list[BenchmarkOverlap]
    benchmarks: dict[str, int]
    skipped: dict[str, int] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    listed: list[Listed] = field(default_factory=list)

    def excluded(self, task: str) -> dict[str, int]:
        """How many conversations of a task are listed, by reason."""
        counts = Counter(one.reason for one in self.listed if one.task == task)
        return dict(sorted(counts.items()))

    def as_json(self) -> dict[str, Any]:
        """The report as dictionaries, lists, texts and numbers."""
        return {
            "mixture": self.mixture,
            "options": self.options,
            "shares": self.shares,
            "benchmarks": self.benchmarks,
            "skipped": self.skipped,
            "datasets": {
                name: {
                    "conversations": found.conversations,
                    "excluded": self.excluded(name),
                    "languages": found.languages,
                    "findings": {kind: _found(one) for kind, one in found.findings.items()},
                }
                for name, found in self.datasets.items()
            },
            "overlap": [
                {**asdict(one), "share": one.share, "worst": [w._asdict() for w in one.worst]}
                for one in self.overlap
            ],
        }


def _found(found: Found) -> dict[str, Any]:
    result: dict[str, Any] = {
        "conversations": found.conversations,
        "examples": [example._asdict() for example in found.examples],
    }
    if found.elsewhere is not None:
        result["of_other_datasets"] = found.elsewhere
    return result
