"""Text as the checks compare it: words without case and punctuation, and hashes of word runs."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache

import numpy as np
from jaxtyping import UInt64

_MULTIPLIER = 0x9E3779B97F4A7C15
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts written without spaces, of which every character counts as a word."""

_SYMBOL_PLANE = "\U0001d000-\U0001ffff"
"""Symbols and emoji; one range, for sets that reach beyond the first plane are slow."""

_KNOWN_WORDS = 1 << 20
"""Words whose hashes are kept at a time."""


def words(text: str) -> list[str]:
    """The words of a text, compatibility forms and case folded, punctuation and symbols left out.

    >>> words("Don't say “Ｈello”, say 你好!")
    ['don', 't', 'say', 'hello', 'say', '你', '好']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _word_pattern().findall(unicodedata.normalize("NFKC", text).casefold())


_ASCII_WORD = re.compile("[a-z0-9]+")


@cache
def _word_pattern() -> re.Pattern[str]:
    """Runs of characters that are no space, punctuation, symbol or control; one CJK character."""
    breaks = [c for c in map(chr, range(1 << 16)) if unicodedata.category(c)[0] in "PSZC"]
    return re.compile(f"[{_CJK}]|[^{_ranges(breaks)}{_SYMBOL_PLANE}{_CJK}]+")


def _ranges(characters: list[str]) -> str:
    """A sorted list of characters as the inside of a character class."""
    codes = np.array([ord(c) for c in characters])
    ends = np.flatnonzero(np.diff(codes) > 1)
    starts = np.concatenate([[0], ends + 1])
    ends = np.concatenate([ends, [len(codes) - 1]])
    return "".join(
        f"{re.escape(chr(a))}-{re.escape(chr(b))}"
        for a, b in zip(codes[starts], codes[ends], strict=True)
    )


class _WordHashes(dict[str, int]):
    """The 64-bit hash of each word asked for; forgets them all when it knows too many."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _KNOWN_WORDS:
            self.clear()
        self[word] = value = hash64(word)
        return value


_WORD_HASHES = _WordHashes()


def hash64(text: str) -> int:
    """A 64-bit hash of a text that is the same in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def word_hashes(found: list[str]) -> UInt64[np.ndarray, "W"]:
    """The hash of each word."""
    return np.fromiter(map(_WORD_HASHES.__getitem__, found), dtype=np.uint64, count=len(found))


def ngram_hashes(hashes: UInt64[np.ndarray, "W"], size: int) -> UInt64[np.ndarray, "ngrams"]:
    """The hash of each run of `size` words, from the words' hashes; none for a shorter text.

    >>> a, b, c = word_hashes(["a", "b", "c"]), word_hashes(["b", "c"]), word_hashes(["c", "b"])
    >>> ngram_hashes(a, 2)[1:] == ngram_hashes(b, 2), ngram_hashes(b, 2) == ngram_hashes(c, 2)
    (array([ True]), array([False]))
    """
    count = len(hashes) - size + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        total *= np.uint64(_MULTIPLIER)
        total += hashes[place : place + count]
    return total ^ (total >> np.uint64(29))
