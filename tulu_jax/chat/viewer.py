"""Shows which tokens of a conversation carry loss, in colour or as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tulu_jax.axes import Mask, TokenIds
from tulu_jax.chat.encode import Encoded
from tulu_jax.chat.tokenizer import Tokenizer
from tulu_jax.errors import DataError

if TYPE_CHECKING:
    from rich.text import Text

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


def show_piece(token: int, tokenizer: Tokenizer) -> str:
    """One token as readable text, whatever alphabet its piece is spelled in.

    Spaces are spaces, newlines `⏎`, bytes that are not a character alone `<0xF0>`, and special
    tokens their piece.
    """
    text = tokenizer.decode([token], skip_special=False, after=True)
    if "\ufffd" in text:
        return tokenizer.byte_names(token)
    return text.replace("\n", NEWLINE)


def render_tokens(encoded: Encoded, tokenizer: Tokenizer) -> Text:
    """A rich text: trained tokens green, others dim, special tokens reversed, newlines visible."""
    from rich.text import Text

    view = Text()
    for span in spans(encoded.tokens, encoded.loss_mask, tokenizer):
        style = TRAINED if span.trained else MASKED
        shown = span.text.replace("\n", NEWLINE + "\n")
        view.append(shown, f"{style} {SPECIAL}" if span.special else style)
    view.append("\n")
    view.append_text(legend(encoded))
    return view


def legend(encoded: Encoded) -> Text:
    """One line that says what the colours mean and how many tokens carry loss."""
    from rich.text import Text

    total = len(encoded.tokens)
    share = 100 * encoded.loss_tokens / max(total, 1)
    line = Text()
    for word, style in (("trained", TRAINED), ("not trained", MASKED), ("special", SPECIAL)):
        line.append(word, style).append("  ")
    line.append(f"{encoded.loss_tokens} of {total} tokens carry loss ({share:.0f} %)")
    return line.append(", cut off at max_length", "bold red") if encoded.truncated else line


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
