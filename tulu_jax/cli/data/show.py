"""Conversations and packed rows as rich text for the terminal, with nothing hidden in it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text

from tulu_jax.chat.viewer import MASKED, NEWLINE, SPECIAL, TRAINED
from tulu_jax.console import visible
from tulu_jax.inspect.pieces import PieceMaker, TextPiece

if TYPE_CHECKING:
    from tulu_jax.inspect.html import PackedRow
    from tulu_jax.inspect.looking import ExampleView


def render_shown(shown: ExampleView, maker: PieceMaker, *, colour: bool = True) -> Text:
    """A head line, the tokens, and how many of them are trained.

    Trained tokens are green, or, without colour, between double brackets.
    """
    text = Text()
    text.append(f"── {visible(shown.id)} ", "bold").append(f"({shown.task}, {shown.roles})\n")
    text.append_text(render_pieces(maker.pieces(shown.tokens, shown.loss_mask), colour=colour))
    text.append("\n")
    return text.append_text(_footer(shown, colour))


def render_row(row: PackedRow, maker: PieceMaker, *, colour: bool = True) -> Text:
    """A packed row: its conversations one after the other with their borders, then the padding."""
    text = Text()
    filled, size = row.filled, row.length
    text.append(
        f"══ row {row.number:,}: {len(row.segments)} segments, {filled:,} of {size:,}", "bold"
    )
    text.append(f" positions filled ({filled / size:.1%})\n", "bold")
    start = 0
    for number, segment in enumerate(row.segments, 1):
        stop = start + len(segment.tokens)
        text.append(f"segment {number}, positions {start} to {stop - 1} ", "cyan")
        text.append_text(render_shown(segment, maker, colour=colour)).append("\n")
        start = stop
    if start < size:
        text.append(f"padding, positions {start} to {size - 1}: never read, never trained", "cyan")
    return text


def render_pieces(pieces: list[TextPiece], *, colour: bool = True) -> Text:
    """The pieces' text; neighbours that are shown alike are one span."""
    text = Text()
    for trained, run in groupby(pieces, key=lambda piece: piece.trained):
        text.append("" if colour or not trained else "[[")
        for special, group in groupby(run, key=lambda piece: piece.special):
            shown = visible("".join(piece.text for piece in group)).replace("\n", NEWLINE + "\n")
            style = TRAINED if trained else MASKED
            text.append(shown, f"{style} {SPECIAL}" if special else style)
        text.append("" if colour or not trained else "]]")
    return text


def _footer(shown: ExampleView, colour: bool) -> Text:
    """What the colours mean, how many tokens carry loss, and what is wrong."""
    total, trained = len(shown.tokens), int(shown.loss_mask.sum())
    line = Text()
    names = ("trained" if colour else "[[trained]]", "not trained", "special")
    for word, style in zip(names, (TRAINED, MASKED, SPECIAL), strict=True):
        line.append(word, style).append("  ")
    line.append(f"{trained} of {total} tokens carry loss ({100 * trained / max(total, 1):.0f} %)")
    if shown.truncated:
        line.append(", cut off at max_length", "bold red")
    from tulu_jax.inspect.report import answer_lines

    for note in answer_lines(shown.answers):
        line.append(f"\n{note}", "yellow")
    if shown.dropped:
        line.append(f"\nDROPPED: no token carries loss ({shown.dropped})", "bold red")
    return line
