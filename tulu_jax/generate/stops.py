"""Stop strings: where in the decoded text of a continuation the first one ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Decode = Callable[[Sequence[int]], str]


class Stop(NamedTuple):
    """A stop string in a continuation."""

    string: str
    text: str
    """What comes before it."""
    num_tokens: int
    """Tokens up to and with the one that completes it."""


def find_stop(tokens: Sequence[int], strings: Sequence[str], decode: Decode) -> Stop | None:
    r"""The stop string that is complete first, or None.

    It is looked for in the text of all tokens, as it may span several, and a character too may
    be spread over several. Of strings that the same token completes the one that begins first
    counts, of those the longer.

    tokens  Hel|lo\n|\nBye     stop "\n\n"   ->   text "Hello", 3 tokens
    """
    text = decode(tokens)
    if not any(string in text for string in strings):
        return None
    low, high = 1, len(tokens)  # fewest tokens whose text has one
    while low < high:
        middle = (low + high) // 2
        if any(string in decode(tokens[:middle]) for string in strings):
            high = middle
        else:
            low = middle + 1
    text = decode(tokens[:low])
    found = [(text.index(string), -len(string), string) for string in strings if string in text]
    start, _, string = min(found)
    return Stop(string, text[:start], low)


def held_back(text: str, strings: Sequence[str]) -> int:
    r"""Characters at the end of a text that may begin a stop string, or be half a character.

    What streams to a reader must end before them.

    text "Hello\n", stop "\n\n"   ->   1
    """
    unfinished = len(text) - len(text.rstrip("\N{REPLACEMENT CHARACTER}"))
    longest = max((len(string) for string in strings), default=0)
    for size in range(min(longest - 1, len(text)), unfinished, -1):
        if any(string.startswith(text[-size:]) for string in strings):
            return size
    return unfinished
