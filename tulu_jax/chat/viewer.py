"""Shows which tokens of a conversation carry loss, as plain text; and the styles of colour."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from tulu_jax.axes import Mask, TokenIds
from tulu_jax.chat.tokenizer import Tokenizer
from tulu_jax.errors import DataError

NEWLINE = "⏎"
TRAINED, MASKED, SPECIAL = "bold green", "dim", "reverse"


class Span(NamedTuple):
    """Neighbouring tokens that are shown alike."""

    text: str
    trained: bool
    special: bool


def spans(tokens: TokenIds, loss_mask: Mask, tokenizer: Tokenizer) -> list[Span]:
    """The conversation as spans: special tokens as their piece, all others as their text."""
    if len(tokens) != len(loss_mask):
        raise DataError(
            "tokens and loss mask differ in length", got=f"{len(tokens)} and {len(loss_mask)}"
        )
    trained = np.asarray(loss_mask, dtype=np.bool_).tolist()
    marked = list(zip(np.asarray(tokens).tolist(), trained, strict=True))
    result: list[Span] = []
    at_start = True
    for (flag, special), group in groupby(
        marked, key=lambda pair: (pair[1], pair[0] in tokenizer.special_ids)
    ):
        ids = [token for token, _ in group]
        text = tokenizer.decode(ids, skip_special=False, after=not at_start)
        result.append(Span(text, flag, special))
        at_start = special and tokenizer.opens_text(ids[-1])
    return result


def preview(tokens: TokenIds, loss_mask: Mask, tokenizer: Tokenizer, *, limit: int = 400) -> str:
    """One line of plain text, of about `limit` characters, with trained text in double brackets.

    For instance `<s><|user|>⏎2+2?⏎<|assistant|>⏎[[4</s>]]`.
    """
    parts: list[str] = []
    left = limit
    for trained, text in _joined(spans(tokens, loss_mask, tokenizer)):
        shown = text.replace("\n", NEWLINE)
        if len(shown) > left:
            shown = shown[:left] + "…"
        parts.append(f"[[{shown}]]" if trained else shown)
        left -= len(shown)
        if left <= 0:
            break
    cut = f" ({len(tokens)} tokens)" if left <= 0 else ""
    return "".join(parts) + cut


def _joined(shown: list[Span]) -> Iterator[tuple[bool, str]]:
    """Spans of the same mask value put together."""
    for trained, group in groupby(shown, key=lambda span: span.trained):
        yield trained, "".join(span.text for span in group)
