r"""Tokenizes text word by word, and each word only once.

Most words of a dataset have been seen before, so looking them up is faster than tokenizing them
again: on one core, in alternation with the library given whole texts, 1.1 and 0.56 million tokens
a second (LLaMA, sentencepiece 0.2.3; 15 M characters of 26,000 distinct texts), and 0.40 and 0.17
(Pythia, tokenizers 0.23.3; a quarter of them). That is exact where no token reaches from one word
into the next, which is for the tokenizer to know: it gives the function that cuts text into words.

    >>> [word for word in at_spaces("Hi  you\n\nall") if word]
    ['Hi', '  you', '\n', '\n', 'all']
    >>> after_black("Hi  you\n\nall(one's)")
    ['Hi', '  you', '\n\nall', '(', "one's)"]
    >>> before_blanks("Hi  you.\n\nall one")
    ['Hi', '  you.\n\nall', ' one']
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from tulu_jax.axes import TokenIds

MAX_WORDS = 2**18
MAX_CHARACTERS = 2**24
"""When more than this is remembered, all is forgotten: memory stays flat in the data's size."""

# Unicode's White_Space: what `\s` matches in the tokenizers library, which is not Python's `\s`.
_WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

# ASCII's punctuation and symbols but the apostrophe, which GPT-2 joins to letters (`'s`).
_SIGNS = r"!-&(-/:-@\[-`{-~"

_LINES = f"(?:[\r\n][{_WHITE}]*[^{_WHITE}]*)*"

_by_spaces = re.compile("\n|[ ▁]+[^ ▁\n]*|[^ ▁\n]+").findall
_by_white = re.compile(
    f"[{_WHITE}]*(?:[A-Za-z]+(?=[0-9{_SIGNS}])|[0-9]+(?=[A-Za-z{_SIGNS}])|[{_SIGNS}]+(?=[A-Za-z0-9]))"
    f"|[{_WHITE}]+[^{_WHITE}]*|[^{_WHITE}]+"
).findall
_by_blanks = re.compile(f"[{_WHITE}]+[^{_WHITE}]*{_LINES}|[^{_WHITE}]+{_LINES}").findall


def at_spaces(text: str) -> list[str]:
    """For SentencePiece: a word is its leading spaces and what follows; a newline is a word.

    Empty words may lie between. Text without the mark of SentencePiece's spaces is cut without a
    regular expression, which is faster.
    """
    if "▁" in text or "\0" in text:
        return _by_spaces(text)
    spaced = text.replace(" ", "\0 ").replace(" \0", " ")
    return spaced.replace("\n", "\0\n\0").split("\0")


def after_black(text: str) -> list[str]:
    """For GPT-2's pre-tokenizer: a word is its leading whitespace and what follows.

    Where that begins with ASCII letters, digits or signs before one of another kind, it ends there.
    """
    return _by_white(text)


def before_blanks(text: str) -> list[str]:
    """For Llama 3's pre-tokenizer, which joins line ends to punctuation before them.

    Only whitespace that does not begin with a line end begins a word.
    """
    return _by_blanks(text)


def whole(text: str) -> list[str]:
    """For tokenizers of which nothing is known: text is one word."""
    return [text]


class WordCache:
    """The token ids of texts, from those of their words."""

    def __init__(
        self,
        cut: Callable[[str], list[str]],
        encode: Callable[[list[str], int], list[list[int]]],
    ) -> None:
        """`cut` gives a text's words, and `encode(words, threads)` each word's ids."""
        self._cut = cut
        self._encode = encode
        self._known: dict[str, bytes] = {}
        self._characters = 0

    def __call__(self, texts: Sequence[str], threads: int = 1) -> list[TokenIds]:
        """The ids of each text (read-only arrays)."""
        cut = [self._cut(text) for text in texts]
        known = self._known
        new = list(set(chain.from_iterable(cut)).difference(known))
        for word, ids in zip(new, self._encode(new, threads) if new else (), strict=True):
            known[word] = array("i", ids).tobytes()
        self._characters += sum(map(len, new))
        get = known.__getitem__
        tokens = [np.frombuffer(b"".join(map(get, words)), np.int32) for words in cut]
        if len(known) > MAX_WORDS or self._characters > MAX_CHARACTERS:
            self._known, self._characters = {}, 0
        return tokens
