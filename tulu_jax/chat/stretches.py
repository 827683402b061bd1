r"""Text between special tokens, tokenized whole, and which of its tokens are trained.

A tokenizer may join the end of a template's text to the beginning of a message's: with ChatML
"assistant\n" and an answer that begins with a newline can share the token "\n\n". So a stretch of
text is never cut where loss begins. Its tokens are those of the whole, and a token is trained when
it stands for a byte of trained text, as with the `{% generation %}` blocks of transformers:

    text           a  s  s  ...  t  \n | \n  H  i
    tokens         [    assistant    ] [\n\n] [Hi]
    trained                  0            1     1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tulu_jax.axes import Mask, TokenIds
from tulu_jax.chat.segments import ID_KINDS, Segment, join
from tulu_jax.errors import TokenizerError

if TYPE_CHECKING:
    from tulu_jax.chat.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Stretch:
    """Text without special tokens, in parts that are each trained or not."""

    parts: list[tuple[str, bool]]

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(text for text, _ in self.parts)


Piece = Stretch | Segment
"""A stretch of text, or a segment that is a special token."""


def pieces_of(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[Piece]:
    """The stretches and special tokens of a conversation, in order."""
    pieces: list[Piece] = []
    for segment in join(segments):
        last = pieces[-1] if pieces else None
        if segment.kind in ID_KINDS:
            pieces.append(segment)
        elif isinstance(last, Stretch):
            last.parts.append((segment.text, segment.trained))
        else:
            text = segment.text if pieces else tokenizer.opening(segment.text)
            pieces.append(Stretch([(text, segment.trained)]))
    return pieces


def encode_pieces(
    pieces: Sequence[Piece], tokens: Iterator[TokenIds], tokenizer: Tokenizer
) -> tuple[TokenIds, Mask]:
    """The ids and the loss mask of a conversation; `tokens` gives the ids of each stretch."""
    ids: list[TokenIds] = []
    masks: list[Mask] = []
    for piece in pieces:
        if isinstance(piece, Stretch):
            own = next(tokens)
            ids.append(own)
            masks.append(trained_tokens(piece, own, tokenizer))
        else:
            special = tokenizer.id_of(piece)
            ids.append(np.array(special, np.int32))
            masks.append(np.full(len(special), piece.trained, np.bool_))
    return np.concatenate(ids), np.concatenate(masks)


def trained_tokens(stretch: Stretch, ids: TokenIds, tokenizer: Tokenizer) -> Mask:
    """Which tokens of a stretch stand for a byte of trained text.

    Raises:
        TokenizerError: the tokens stand for more or fewer bytes than the text has.
    """
    if len(stretch.parts) == 1:
        return np.full(len(ids), stretch.parts[0][1], np.bool_)
    ends = np.cumsum(tokenizer.piece_bytes[ids])
    starts = np.concatenate([[0], ends[:-1]])
    mask = np.zeros(len(ids), np.bool_)
    at = 0
    for text, trained in stretch.parts:
        start, at = at, at + tokenizer.text_bytes(text)
        if trained:
            first, last = np.searchsorted(ends, start, "right"), np.searchsorted(starts, at, "left")
            mask[first:last] = True
    if at != (ends[-1] if len(ends) else 0):
        raise TokenizerError(
            "tokens do not add up to their text, so the loss mask would be a guess",
            got=f"{int(ends[-1]) if len(ends) else 0} bytes in tokens",
            at=f"{tokenizer.path}, text {stretch.text[:60]!r}",
            expected=f"{at} bytes",
            do="choose another tokenizer or CHAT_TEMPLATE",
        )
    return mask
