"""Conversations that occur twice, word for word or nearly."""

from __future__ import annotations

import unicodedata
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt32, UInt64

from tulu_jax.inspect.check.language import missing_extra
from tulu_jax.inspect.check.text import ngram_hashes

PERMUTATIONS = 128
"""Values of a MinHash signature; the Jaccard similarity it gives has an error of about 0.04."""

SHINGLE_WORDS = 5
"""Two texts are compared by the runs of so many words that they have in common."""

RECALL = 0.99
"""With which probability a pair exactly at the threshold is found."""

_AT_ONCE = 4096


def normalised(text: str) -> str:
    """The text by which exact copies are told: case and spaces do not count, signs do.

    >>> normalised("What is  2+2? ") == normalised("what is 2+2?") != normalised("What is 2*2?")
    True
    """
    text = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


class Signer:
    """Makes MinHash signatures; one in each process."""

    def __init__(self) -> None:
        """Raises: ConfigError when datasketch is not installed."""
        try:
            from datasketch import MinHash
        except ImportError as error:
            raise missing_extra("datasketch") from error
        self._minhash: Any = MinHash(num_perm=PERMUTATIONS, hashfunc=int, scheme="affine32")

    def __call__(self, words: UInt64[np.ndarray, "words"]) -> UInt32[np.ndarray, "128"] | None:
        """The signature of a text from its words' hashes; None for fewer than five words."""
        shingles = np.unique(ngram_hashes(words, SHINGLE_WORDS) >> np.uint64(32))
        if not len(shingles):
            return None
        self._minhash.clear()
        for start in range(0, len(shingles), _AT_ONCE):
            self._minhash.update_batch(shingles[start : start + _AT_ONCE].tolist())
        return np.asarray(self._minhash.hashvalues, dtype=np.uint32).copy()


class Pairs(NamedTuple):
    """Pairs of rows, the earlier first, and how similar their texts are, 0 to 1."""

    first: Int[np.ndarray, "pairs"]
    second: Int[np.ndarray, "pairs"]
    similarity: Float[np.ndarray, "pairs"]


def copies(keys: UInt64[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
    """For each row the first row of the same key: itself when it is not a copy.

    >>> copies(np.array([7, 9, 7, 7], dtype=np.uint64))
    array([0, 1, 0, 0])
    """
    if not len(keys):
        return np.empty(0, dtype=np.int64)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return first[group]


def near_pairs(
    signatures: UInt32[np.ndarray, "rows 128"],
    rows: Int[np.ndarray, "chosen"],
    *,
    threshold: float,
) -> Pairs:
    """Pairs among the chosen rows whose estimated Jaccard similarity reaches the threshold.

    Rows meet when a band of their signatures is equal. In a group of many such rows each is
    compared with its neighbours and with the first, so that the time stays linear; `clusters`
    joins what belongs together.
    """
    band_rows = rows_per_band(threshold)
    kept: list[np.ndarray] = [np.empty(0, np.int64)]
    count = len(signatures)
    for start in range(0, PERMUTATIONS - band_rows + 1, band_rows):
        band = np.ascontiguousarray(signatures[rows, start : start + band_rows])
        candidates = _meeting(_band_keys(band))
        for begin in range(0, candidates.shape[1], 100_000):
            first, second = np.sort(rows[candidates[:, begin : begin + 100_000]], axis=0)
            good = _similarity(signatures, first, second) >= threshold
            kept.append(first[good] * count + second[good])
    first, second = np.divmod(np.unique(np.concatenate(kept)), max(count, 1))
    return Pairs(first, second, _similarity(signatures, first, second))


def _similarity(
    signatures: np.ndarray, first: np.ndarray, second: np.ndarray
) -> Float[np.ndarray, "pairs"]:
    return (signatures[first] == signatures[second]).mean(axis=1)


def rows_per_band(threshold: float) -> int:
    """The longest band with which a pair at the threshold is found with probability 0.99.

    >>> rows_per_band(0.8), rows_per_band(0.5)
    (6, 3)
    """
    for rows in range(32, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL:
            return rows
    return 1


def clusters(pairs: Pairs, count: int) -> Int[np.ndarray, "rows"]:
    """For each of `count` rows the first row that pairs join it with: itself when there is none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs.first), dtype=bool)
    graph = coo_array((ones, (pairs.first, pairs.second)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    return copies(label.astype(np.uint64))


def _band_keys(columns: np.ndarray) -> UInt64[np.ndarray, "rows"]:
    """One hash for each row of a table of numbers."""
    total = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T.astype(np.uint64):
        total = (total ^ column) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total


def _meeting(keys: np.ndarray) -> Int[np.ndarray, "2 pairs"]:
    """Places of equal keys in pairs: each with the one before it, and with the first."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    first = np.searchsorted(ordered, ordered[same])
    pairs = np.stack([np.concatenate([same - 1, first]), np.concatenate([same, same])])
    return order[pairs]
