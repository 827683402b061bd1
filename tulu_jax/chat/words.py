r"""Tokenizes text word by word, and each word only once.

Most words of a dataset have been seen before, so looking them up is several times faster than
tokenizing them again. That is exact where no token reaches from one word into the next, which is
for the tokenizer to know: it gives the pattern that cuts text into such words.

    >>> re.findall(AT_SPACES, "Hi  you\n\nall")
    ['Hi', '  you', '\n', '\n', 'all']
    >>> re.findall(AFTER_BLACK, "Hi  you\n\nall")
    ['Hi', '  you', '\n\nall']
    >>> re.findall(BEFORE_BLANKS, "Hi  you.\n\nall one")
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

AT_SPACES = "\n|[ ▁]+[^ ▁\n]*|[^ ▁\n]+"
"""For SentencePiece: a word is its leading spaces and what follows; a newline is a word."""

# Unicode's White_Space: what `\s` matches in the tokenizers library, which is not Python's `\s`.
_WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

AFTER_BLACK = f"[{_WHITE}]+[^{_WHITE}]*|[^{_WHITE}]+"
"""For GPT-2's pre-tokenizer: a word is its leading whitespace and what follows."""

_LINES = f"(?:[\r\n][{_WHITE}]*[^{_WHITE}]*)*"
BEFORE_BLANKS = f"[{_WHITE}]+[^{_WHITE}]*{_LINES}|[^{_WHITE}]+{_LINES}"
"""For Llama 3's pre-tokenizer, which joins line ends to punctuation before them: only whitespace
that does not start with a line end starts a word."""


class WordCache:
    """The token ids of texts, from those of their words."""

    def __init__(
        self, pattern: str | None, encode: Callable[[list[str], int], list[list[int]]]
    ) -> None:
        """Cuts by `pattern` (None: never); `encode(words, threads)` gives each word's ids."""
        self._cut = re.compile(pattern).findall if pattern else lambda text: [text]
        self._encode = encode
        self._known: dict[str, bytes] = {}
        self._characters = 0

    def __call__(self, texts: Sequence[str], threads: int = 1) -> list[TokenIds]:
        """The ids of each text (read-only arrays)."""
        cut = [self._cut(text) for text in texts]
        known = self._known
        new = list(set(chain.from_iterable(cut)).difference(known))
        if new:
            for word, ids in zip(new, self._encode(new, threads), strict=True):
                known[word] = array("i", ids).tobytes()
            self._characters += sum(map(len, new))
        get = known.__getitem__
        tokens = [np.frombuffer(b"".join(map(get, words)), np.int32) for words in cut]
        if len(known) > MAX_WORDS or self._characters > MAX_CHARACTERS:
            self._known, self._characters = {}, 0
        return tokens
