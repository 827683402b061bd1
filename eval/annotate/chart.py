"""The paper's figure of preferences: a bar a pair, from one model's clear wins to the other's."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from eval.annotate.figures import PairFigures

WIDTH, BAR, GAP, LABEL = 640, 30, 30, 20
CLASSES = ("clear-first", "slight-first", "tie", "slight-second", "clear-second")


def win_chart(pairs: Sequence[PairFigures]) -> str:
    """The bars as SVG without style: its classes are coloured by the page."""
    height = len(pairs) * (BAR + GAP) + 4
    parts = [
        f'<svg class="wins" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Shares of preference by pair of models">'
    ]
    for row, pair in enumerate(pairs):
        parts += _bar(pair, row * (BAR + GAP) + 4)
    return "".join([*parts, "</svg>"])


def _bar(pair: PairFigures, top: float) -> list[str]:
    first, second = (escape(name) for name in pair.models)
    wins = [pair.wins[name].value for name in (pair.models[0], "tie", pair.models[1])]
    parts = [
        f'<text x="0" y="{top + 14}">{first} {wins[0]:.1%}</text>',
        f'<text class="middle" x="{WIDTH / 2}" y="{top + 14}" text-anchor="middle">'
        f"tie {wins[1]:.1%}</text>",
        f'<text x="{WIDTH}" y="{top + 14}" text-anchor="end">{second} {wins[2]:.1%}</text>',
    ]
    left = 0.0
    for name, step in zip(CLASSES, pair.steps, strict=True):
        width = step.value * WIDTH
        parts.append(
            f'<rect class="{name}" x="{left:.2f}" y="{top + LABEL}" width="{width:.2f}" '
            f'height="{BAR}"><title>{step.value:.1%}</title></rect>'
        )
        left += width
    return parts
