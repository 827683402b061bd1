"""Overlap with the evaluation sets: which questions a mixture has already seen.

A question counts as seen when one conversation shares runs of `size` words (8) with it that
together cover at least `threshold` (half) of its words: the rule by which Tülu 3 was cleaned.
GPT-3 took single shared runs of 13 words; that misses short questions, and quotes of a few lines
in a long passage count in full. Word runs that more than ten questions of a benchmark share are
its template ("Which of the following ...") and say nothing. A question shorter than a run counts
as seen only when a whole message is that question.

Source: arXiv 2411.15124 (Tülu 3), section on decontamination; arXiv 2005.14165 (GPT-3), appendix C;
both from memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from tulu_jax.inspect.check.benchmarks import BenchmarkItem
from tulu_jax.inspect.check.options import MIN_WORDS, check_overlap_rule
from tulu_jax.inspect.check.text import hash64, ngram_hashes, word_hashes, words

TEMPLATE_ITEMS = 10
"""A word run that more items than this share belongs to the benchmark's template."""

_FILTER_BITS = 24


@dataclass(frozen=True)
class Seen:
    """An item that a conversation contains: `coverage` is the share of the item's words."""

    item: int
    coverage: float
    with_answer: bool


class OverlapIndex:
    """The word runs of evaluation items, ready to be looked up."""

    def __init__(
        self, items: Sequence[BenchmarkItem], *, size: int = 8, threshold: float = 0.5
    ) -> None:
        """Indexes the items' prompts.

        Raises: ConfigError for a size below 4 or a threshold outside 0 to 1.
        """
        check_overlap_rule(size, threshold)
        self.items = items
        self.size = size
        self.threshold = threshold
        texts = [words(item.prompt) for item in items]
        self._short = {
            hash64(" ".join(found)): number
            for number, found in enumerate(texts)
            if MIN_WORDS <= len(found) < size
        }
        self._index(texts)

    def _index(self, texts: list[list[str]]) -> None:
        """Sorted unique runs, where the postings of each start, and its items and positions."""
        runs = [ngram_hashes(word_hashes(found), self.size) for found in texts]
        counts = np.array([len(run) for run in runs], dtype=np.int64)
        hashes = np.concatenate([*runs, np.empty(0, np.uint64)])
        item = np.repeat(np.arange(len(texts), dtype=np.int32), counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        position = (np.arange(len(hashes)) - starts).astype(np.int32)
        keep = ~self._is_template(hashes, item)
        hashes, item, position = hashes[keep], item[keep], position[keep]
        order = np.argsort(hashes, kind="stable")
        self._item, self._position = item[order], position[order]
        self._runs, first = np.unique(hashes[order], return_index=True)
        self._first = np.append(first, len(hashes)).astype(np.int64)
        self._maybe = np.zeros(1 << _FILTER_BITS, dtype=bool)
        self._maybe[_low_bits(self._runs)] = True
        self._coverable = np.zeros(len(texts), dtype=np.int64)
        by_item = np.argsort(item, kind="stable")
        ends = np.searchsorted(item[by_item], np.arange(len(texts) + 1))
        for number in np.unique(item).tolist():
            places = position[by_item[ends[number] : ends[number + 1]]]
            self._coverable[number] = _covered(places, self.size)
        self._coverable[list(self._short.values())] = 1

    def _is_template(self, hashes: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Whether each run is shared by more than ten items of its benchmark."""
        names = {name: i for i, name in enumerate(dict.fromkeys(i.benchmark for i in self.items))}
        of_item = np.array([names[i.benchmark] for i in self.items], dtype=np.uint64)
        keys = hashes * np.uint64(31) + of_item[item] if len(hashes) else hashes
        _, number = np.unique(keys, return_inverse=True)
        pairs = np.unique(number.astype(np.int64) * len(self.items) + item)
        shared_by = np.bincount(pairs // max(len(self.items), 1), minlength=1)
        return shared_by[number] > TEMPLATE_ITEMS

    @property
    def checkable(self) -> dict[str, int]:
        """How many items of each benchmark can be found at all."""
        counts: dict[str, int] = {}
        for item, coverable in zip(self.items, self._coverable.tolist(), strict=True):
            counts[item.benchmark] = counts.get(item.benchmark, 0) + bool(coverable)
        return counts

    def find(self, messages: Sequence[list[str]], answers: Sequence[list[str]] = ()) -> list[Seen]:
        """The items that a conversation has seen.

        `messages` are the words of all its messages, `answers` those of the assistant's.
        """
        runs = [ngram_hashes(word_hashes(found), self.size) for found in messages]
        hits = self._hits(np.concatenate([*runs, np.empty(0, np.uint64)]))
        seen = [
            (number, coverage)
            for number, coverage in self._coverage(hits).items()
            if coverage >= self.threshold
        ]
        for found in messages:
            if MIN_WORDS <= len(found) < self.size:
                number = self._short.get(hash64(" ".join(found)))
                if number is not None:
                    seen.append((number, 1.0))
        return [Seen(item, share, self._has_answer(item, answers)) for item, share in seen]

    def _hits(self, runs: UInt64[np.ndarray, "runs"]) -> Int[np.ndarray, "hits"]:
        """Places in `_runs` of those runs that are in it, each once."""
        runs = np.unique(runs[self._maybe[_low_bits(runs)]])
        if not len(runs) or not len(self._runs):
            return np.empty(0, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        return places[self._runs[places] == runs]

    def _coverage(self, hits: Int[np.ndarray, "hits"]) -> dict[int, float]:
        """The share of each item's words that the hits cover."""
        positions: dict[int, list[int]] = {}
        for hit in hits.tolist():
            for place in range(self._first[hit], self._first[hit + 1]):
                positions.setdefault(int(self._item[place]), []).append(int(self._position[place]))
        return {
            item: _covered(np.array(places), self.size) / int(self._coverable[item])
            for item, places in positions.items()
        }

    def _has_answer(self, item: int, answers: Sequence[list[str]]) -> bool:
        """Whether the assistant says the item's answer: all of a short one, half of a long."""
        wanted = words(self.items[item].answer)
        if not wanted:
            return False
        if len(wanted) < 2 * self.size:
            text = f" {' '.join(wanted)} "
            return any(text in f" {' '.join(found)} " for found in answers)
        runs = np.unique(ngram_hashes(word_hashes(wanted), self.size))
        said = [ngram_hashes(word_hashes(found), self.size) for found in answers]
        both = np.isin(runs, np.concatenate([*said, np.empty(0, np.uint64)]))
        return bool(both.mean() >= self.threshold)


def _covered(positions: np.ndarray, size: int) -> int:
    """How many words lie in at least one of the runs that start at `positions`.

    >>> _covered(np.array([0, 1, 10]), 8)
    17
    """
    starts = np.unique(positions)
    return int(np.minimum(np.diff(starts), size).sum()) + size if len(starts) else 0


def _low_bits(hashes: UInt64[np.ndarray, "runs"]) -> Int[np.ndarray, "runs"]:
    return (hashes & np.uint64((1 << _FILTER_BITS) - 1)).astype(np.int64)
