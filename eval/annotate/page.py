"""A page of a study's figures that needs no network: the chart, and the lines of the report."""

from __future__ import annotations

from html import escape
from pathlib import Path

from eval.annotate.chart import win_chart
from eval.annotate.figures import Figures, describe

_STYLE = Path(__file__).parent / "web" / "static" / "app.css"


def make_page(figures: Figures, source: str) -> str:
    """The page's HTML."""
    name = escape(Path(source).name if "://" not in source else "a study")
    style = _STYLE.read_text(encoding="utf-8")
    lines = escape("\n".join(describe(figures)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Human evaluation: {name}</title><style>{style}</style></head><body><main>"
        f"<h1>Human evaluation: {name}</h1>"
        '<section class="card"><h2>Preference</h2><div class="wide">'
        f"{win_chart(figures.pairs)}</div></section>"
        f'<section class="card text"><h2>Figures</h2><pre>{lines}</pre></section>'
        "</main></body></html>\n"
    )
