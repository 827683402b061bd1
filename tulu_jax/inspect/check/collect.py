"""From the facts of chunks to a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from tulu_jax.inspect.check.duplicates import clusters, copies, near_pairs
from tulu_jax.inspect.check.examine import Examined
from tulu_jax.inspect.check.language import UNKNOWN
from tulu_jax.inspect.check.marks import Marks
from tulu_jax.inspect.check.options import KINDS, CheckOptions
from tulu_jax.inspect.check.overlap import OverlapIndex, Seen
from tulu_jax.inspect.check.result import (
    BenchmarkOverlap,
    CheckReport,
    DatasetFindings,
    Found,
    FoundExample,
    Listed,
    SeenItem,
)
from tulu_jax.inspect.check.spool import Spool

OUTLIER_SPREADS = 5.0
"""A length is an outlier beyond so many spreads of the logarithm from the dataset's median."""

MIN_SPREAD = 0.3
"""Spreads below this (a factor of 1.35) count as this much: of equal lengths none is far off."""

_PROMPT_CHARACTERS = 100


class Collector:
    """Adds up what was found, dataset by dataset."""

    def __init__(
        self,
        mixture: str,
        datasets: Sequence[str],
        options: CheckOptions,
        *,
        spool: Spool,
        index: OverlapIndex | None,
    ) -> None:
        """Nothing found yet; large facts go to `spool`."""
        self._mixture, self._options = mixture, options
        self._spool, self._index = spool, index
        self._datasets = {name: DatasetFindings() for name in datasets}
        self._languages: dict[str, dict[str, Found]] = {name: {} for name in datasets}
        self._marks = Marks(options.exclude)
        self._rows_in: dict[tuple[str, str], list[int]] = {}
        self._best: dict[tuple[str, int], SeenItem] = {}
        self._touched: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, examined: Examined) -> None:
        """Adds a chunk of a dataset; datasets come one after the other, in their order."""
        found = self._datasets[name]
        worst, start = self._options.worst, len(self._spool)
        self._spool.add(examined)
        found.conversations += len(examined.ids)
        for place, kind, detail in examined.findings:
            self._marks.add(start + place, kind, detail)
            example = FoundExample(examined.ids[place], detail)
            found.findings.setdefault(kind, Found()).add(example, worst)
        for place, language in enumerate(examined.languages):
            known = self._languages[name].setdefault(language, Found())
            known.add(FoundExample(examined.ids[place], language), worst)
            if self._marks.wants("other_language"):
                self._rows_in.setdefault((name, language), []).append(start + place)
        self._add_seen(name, examined, start)

    def _add_seen(self, dataset: str, examined: Examined, start: int) -> None:
        assert self._index is not None or not examined.seen
        touched = set()
        for place, seen in sorted(examined.seen, key=lambda one: -one[1].coverage):
            item = self._index.items[seen.item]  # pyright: ignore[reportOptionalMemberAccess]
            touched.add((place, item.benchmark))
            detail = f"{seen.coverage:.0%} of {item.benchmark} item {item.id}"
            self._marks.add(start + place, "overlap", detail)
            best = self._best.get((dataset, seen.item))
            if best is None or _rank(seen) > (best.coverage, best.with_answer):
                prompt = " ".join(item.prompt.split())[:_PROMPT_CHARACTERS]
                found = SeenItem(item.id, examined.ids[place], *_rank(seen), prompt)
                self._best[dataset, seen.item] = found
        self._touched.update((dataset, benchmark) for _, benchmark in touched)

    def report(self) -> CheckReport:
        """Everything, with what only shows when all has been seen: copies and outliers."""
        end = 0
        for name, found in self._datasets.items():
            start, end = end, end + found.conversations
            self._count_languages(name, found)
            found.findings["length_outliers"] = self._outliers(start, end)
        signatures = self._copies()
        for found in self._datasets.values():
            found.findings = {
                kind: found.findings[kind]
                for kind in KINDS
                if kind in found.findings and found.findings[kind].conversations
            }
        report = CheckReport(
            mixture=self._mixture,
            options=asdict(self._options),
            datasets=self._datasets,
            overlap=self._overlap(),
            benchmarks=self._index.checkable if self._index else {},
        )
        report.shares = _shares(report, self._items_seen())
        report.listed = self._listed(signatures)
        return report

    def _listed(self, signatures: np.ndarray) -> list[Listed]:
        """The conversations to exclude."""
        names = list(self._datasets)
        ends = np.cumsum([found.conversations for found in self._datasets.values()])

        def dataset(row: int) -> str:
            return names[int(np.searchsorted(ends, row, side="right"))]

        def like(kind: str, row: int, kept: int) -> str:
            what = {"exact_duplicates": "copy of", "duplicate_prompts": "prompt of"}.get(kind)
            if what is None:
                what = f"{(signatures[row] == signatures[kept]).mean():.2f} like"
            where = "" if dataset(row) == dataset(kept) else f" of {dataset(kept)}"
            return f"{what} {self._spool.id(kept)}{where}"

        return [
            Listed(dataset(row), self._spool.id(row), reason, detail)
            for row, reason, detail in self._marks.marks(like)
        ]

    def _items_seen(self) -> Counter[str]:
        """Items by benchmark that any dataset has seen, each once."""
        items = {item for _, item in self._best}
        known = self._index.items if self._index else []
        return Counter(known[item].benchmark for item in items)

    def _count_languages(self, name: str, found: DatasetFindings) -> None:
        """Counts languages; those other than the commonest are findings."""
        counted = sorted(self._languages[name].items(), key=lambda kv: -kv[1].conversations)
        found.languages = {language: one.conversations for language, one in counted}
        known = [(language, one) for language, one in counted if language != UNKNOWN]
        other = Found()
        for language, one in known[1:]:
            for row in self._rows_in.get((name, language), []):
                self._marks.add(row, "other_language", language)
            other.conversations += one.conversations
            other.examples += one.examples
        other.examples = other.examples[: self._options.worst]
        found.findings["other_language"] = other

    def _outliers(self, start: int, end: int) -> Found:
        """Rows whose prompt or answers are of a length far from the dataset's median."""
        found = Found()
        if end == start:
            return found
        parts = {"prompt": "prompt_words", "answers": "answer_words"}
        lengths = {part: self._spool.column(name)[start:end] for part, name in parts.items()}
        far = {part: _distance(values) for part, values in lengths.items()}
        score = np.maximum(far["prompt"], far["answers"])
        rows = np.flatnonzero(score > OUTLIER_SPREADS)
        medians = {part: int(np.median(values)) for part, values in lengths.items()}
        for row in rows[np.argsort(-score[rows], kind="stable")].tolist():
            part = "prompt" if far["prompt"][row] >= far["answers"][row] else "answers"
            detail = f"{part} of {lengths[part][row]:,} words, median {medians[part]:,}"
            found.add(FoundExample(self._spool.id(start + row), detail), self._options.worst)
            self._marks.add(start + row, "length_outliers", detail)
        return found

    def _copies(self) -> np.ndarray:
        """Counts exact copies, repeated prompts and near copies under the dataset of the later.

        Returns all rows' signatures.
        """
        rows = np.arange(len(self._spool))
        original = copies(self._spool.column("conversation_keys"))
        self._count_copies("exact_duplicates", original)
        self._count_copies("duplicate_prompts", copies(self._spool.column("prompt_keys")))
        signatures = self._spool.signatures()
        chosen = rows[(original == rows) & self._spool.column("signed")]
        pairs = near_pairs(signatures, chosen, threshold=self._options.jaccard)
        self._count_copies("near_duplicates", clusters(pairs, len(rows)), signatures)
        return signatures

    def _count_copies(
        self, kind: str, original: np.ndarray, signatures: np.ndarray | None = None
    ) -> None:
        self._marks.add_copies(kind, original)
        rows = np.flatnonzero(original != np.arange(len(original)))
        sizes = [found.conversations for found in self._datasets.values()]
        dataset_of = np.repeat(np.arange(len(sizes)), sizes)
        for number, findings in enumerate(self._datasets.values()):
            mine = rows[dataset_of[rows] == number]
            found = Found(
                conversations=len(mine), elsewhere=int((dataset_of[original[mine]] != number).sum())
            )
            for row in mine[: self._options.worst].tolist():
                first = int(original[row])
                like = "copy of"
                if signatures is not None:
                    like = f"{(signatures[row] == signatures[first]).mean():.2f} like"
                found.examples.append(
                    FoundExample(self._spool.id(row), f"{like} {self._spool.id(first)}")
                )
            findings.findings[kind] = found

    def _overlap(self) -> list[BenchmarkOverlap]:
        """Every pair of a dataset and a benchmark, the largest share first."""
        if self._index is None:
            return []
        table = {
            (dataset, benchmark): BenchmarkOverlap(dataset, benchmark, items)
            for dataset in self._datasets
            for benchmark, items in self._index.checkable.items()
        }
        for (dataset, item), seen in self._best.items():
            one = table[dataset, self._index.items[item].benchmark]
            one.items_seen += 1
            one.with_answer += seen.with_answer
            one.worst.append(seen)
        for key, one in table.items():
            one.conversations = self._touched[key]
            one.worst.sort(key=lambda seen: (-seen.coverage, not seen.with_answer))
            del one.worst[self._options.worst :]
        return sorted(table.values(), key=lambda one: -one.share)


def _rank(seen: Seen) -> tuple[float, bool]:
    return seen.coverage, seen.with_answer


def _distance(lengths: np.ndarray) -> np.ndarray:
    """How many robust spreads the logarithm of each length lies from the median; none for 0."""
    logarithm = np.log1p(lengths.astype(np.float64))
    away = np.where(lengths > 0, np.abs(logarithm - np.median(logarithm)), 0.0)
    return away / max(1.4826 * float(np.median(away)), MIN_SPREAD)


def _shares(report: CheckReport, seen: Counter[str]) -> dict[str, float]:
    """For each kind the share that a limit is compared with; `seen` items by benchmark."""
    total = max(sum(found.conversations for found in report.datasets.values()), 1)
    shares = dict.fromkeys(KINDS, 0.0)
    for found in report.datasets.values():
        for kind, one in found.findings.items():
            shares[kind] += one.conversations / total
    shares["overlap"] = max(
        (seen[name] / items for name, items in report.benchmarks.items() if items), default=0.0
    )
    return shares


def limits_exceeded(report: CheckReport, limits: Sequence[tuple[str, float]]) -> list[str]:
    """A line for each limit that the report's share is above."""
    return [
        f"{kind}: {report.shares[kind]:.2%} is above the limit of {limit:.2%}"
        for kind, limit in limits
        if report.shares[kind] > limit
    ]
