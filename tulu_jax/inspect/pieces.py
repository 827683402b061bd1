"""Tokens as text to look at: groups of tokens that are whole characters together.

One token is not always text: LLaMA's tokenizer spells rare characters byte by byte, and byte-level
tokenizers cut inside characters. Such tokens are shown as one group.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tulu_jax.axes import Mask, TokenIds
from tulu_jax.chat import Tokenizer

LONGEST_GROUP = 16
"""Tokens after which bytes that still are no character are shown one by one, as U+FFFD."""

_JOINER = "\u200d"
_NO_CHARACTER = "\ufffd"


class TextPiece(NamedTuple):
    """Tokens `start` to `stop`, both as indices, that are shown together as `text`."""

    start: int
    stop: int
    text: str
    trained: bool
    special: bool


class PieceMaker:
    """Cuts tokenized conversations into pieces; remembers the text of each token it has met."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """A maker for tokens of this tokenizer."""
        self.tokenizer = tokenizer
        self._known: dict[tuple[int | None, int], str] = {}

    def pieces(self, tokens: TokenIds, loss_mask: Mask) -> list[TextPiece]:
        """The pieces in order; their texts, joined, are the whole text, special tokens included.

        With LLaMA's tokenizer, "中⚙" after a newline is one token and three bytes:

            token   30275  <0xE2> <0x9A> <0x99>
            piece       中                    ⚙
            start       0                    1
            stop        1                    4

        Tokens of different mask values are never one piece.
        """
        ids = np.asarray(tokens).tolist()
        trained = np.asarray(loss_mask, dtype=np.bool_).tolist()
        special = [token in self.tokenizer.special_ids for token in ids]
        result: list[TextPiece] = []
        start = 0
        while start < len(ids):
            stop = start + 1
            if special[start]:
                text = self.tokenizer.piece(ids[start])
            else:
                before = ids[start - 1] if start and special[start - 1] else None
                limit = _same(trained, special, start)
                stop, text = self._group(ids, start, limit=limit, before=before)
            _add(result, TextPiece(start, stop, text, trained[start], special[start]))
            start = stop
        return result

    def text_of(self, token: int) -> str:
        """The text of one token within a text; U+FFFD where it is only a part of a character."""
        if token in self.tokenizer.special_ids:
            return self.tokenizer.piece(token)
        return self._text([token], before=None, first=False)

    def _group(
        self, ids: Sequence[int], start: int, *, limit: int, before: int | None
    ) -> tuple[int, str]:
        """Where the shortest run of tokens from `start` that is whole characters ends; its text."""
        alone = self._text(ids[start : start + 1], before=before, first=start == 0)
        if _NO_CHARACTER not in alone:
            return start + 1, alone
        for stop in range(start + 2, limit + 1):
            text = self._text(ids[start:stop], before=before, first=start == 0)
            if _NO_CHARACTER not in text:
                return stop, text
        for stop in range(min(limit, start + 4), start + 1, -1):  # U+FFFD itself, byte by byte
            text = self._text(ids[start:stop], before=before, first=start == 0)
            if text.count(_NO_CHARACTER) == 1 and text.endswith(_NO_CHARACTER):
                return stop, text
        return start + 1, alone

    def _text(self, ids: Sequence[int], *, before: int | None, first: bool) -> str:
        """The text of ordinary tokens behind the special token `before`, else within a text."""
        key = (-1 if first else before, ids[0])
        known = self._known.get(key) if len(ids) == 1 else None
        if known is not None:
            return known
        if before is None:
            text = self.tokenizer.decode(ids, after=not first)
        else:
            text = self.tokenizer.decode([before, *ids], skip_special=False, after=True)
            text = text.removeprefix(self.tokenizer.piece(before))
        if len(ids) == 1:
            self._known[key] = text
        return text


def _same(trained: Sequence[bool], special: Sequence[bool], start: int) -> int:
    """The end of the ordinary tokens from `start` that share its mask value; bounded."""
    stop = start + 1
    last = min(len(trained), start + LONGEST_GROUP)
    while stop < last and trained[stop] == trained[start] and not special[stop]:
        stop += 1
    return stop


def _add(pieces: list[TextPiece], piece: TextPiece) -> None:
    """Appends the piece, or lengthens the last one where both are one character to the reader."""
    last = pieces[-1] if pieces else None
    if last is not None and _continues(last, piece):
        pieces[-1] = last._replace(stop=piece.stop, text=last.text + piece.text)
    else:
        pieces.append(piece)


def _continues(last: TextPiece, piece: TextPiece) -> bool:
    """Whether the second starts with a mark, joiner or skin tone that belongs to the first."""
    if last.special or piece.special or last.trained != piece.trained:
        return False
    if not last.text or not piece.text:
        return False
    first = piece.text[0]
    if last.text[-1].isspace() or (first.isascii() and last.text[-1] != _JOINER):
        return False
    tone = "\U0001f3fb" <= first <= "\U0001f3ff"
    return (
        tone
        or first == _JOINER
        or last.text[-1] == _JOINER
        or unicodedata.category(first)[0] == "M"
    )
