"""A study's report as one page: no script, nothing fetched, light and dark as the system has it."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

from eval.report.formats import clean
from eval.report.grid import Cell, Grid
from eval.study.report import summary, title_of
from eval.study.results import Findings
from eval.study.tables import Section
from tulu_jax.errors import DataError
from tulu_jax.files import advice, write_whole
from tulu_jax.inspect.html import page

HERE = Path(__file__).parent / "page"
LARGEST = 2_000_000
"""Of a page, in bytes."""


def write_html(path: Path, found: Findings, made: list[Section]) -> Path:
    """The page at `path`.

    Raises: DataError when the file cannot be written, or would be larger than `LARGEST`.
    """
    text = render(found, made)
    size = len(text.encode(errors="backslashreplace"))
    if size > LARGEST:
        raise DataError(
            "the study's page is too large", got=f"{size:,} bytes", at=path,
            expected=f"{LARGEST:,} at most", do="take --format markdown",
        )  # fmt: skip
    try:
        write_whole(path, text)
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError("cannot write the report", got=got, at=path, do=advice(error)) from error
    return path


def render(found: Findings, made: list[Section]) -> str:
    """The page's HTML."""
    files = (page.HERE / "report.css", HERE / "study.css")
    style = "\n".join(file.read_text(encoding="utf-8") for file in files)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts = {
        "policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        "title": f"{_text(title_of(found))} - tulu study report",
        "style": style,
        "heading": _text(title_of(found)),
        "summary": _text(summary(found)),
        "nav": "".join(f'<a href="#{_name(one)}">{_text(one.title)}</a>' for one in made),
        "sections": "\n".join(map(_section, made)),
    }
    template = (HERE / "study.html").read_text(encoding="utf-8")
    pieces = template.split("%%")  # text, name, text, name, ... text
    return "".join(parts[p] if i % 2 else p for i, p in enumerate(pieces))


def _section(one: Section) -> str:
    said = "".join(f'<li dir="auto">{_text(line)}</li>' for line in one.text)
    tables = "".join(map(_table, one.tables))
    return (
        f'<section class="card" id="{_name(one)}"><h2>{_text(one.title)}</h2>'
        f"{f'<ul>{said}</ul>' if said else ''}{one.figure}{tables}</section>"
    )


def _name(one: Section) -> str:
    return re.sub(r"[^\w.-]+", "-", one.name)


def _table(grid: Grid) -> str:
    head = "".join(f'<th scope="col" class="number">{_text(name)}</th>' for name in grid.columns)
    counts = ""
    if grid.counts is not None:
        shown = "".join(
            f'<td class="number">{"" if n is None else f"{n:,}"}</td>' for n in grid.counts
        )
        counts = f'<tr class="counts"><th scope="row">n</th>{shown}</tr>'
    rows = "".join(_row(name, cells) for name, cells in grid.rows)
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in grid.notes)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{_text(grid.corner)}">'
        f'<table><thead><tr><th scope="col">{_text(grid.corner)}</th>{head}</tr></thead>'
        f"<tbody>{counts}{rows}</tbody></table></div>{notes}"
    )


def _row(name: str, cells: list[Cell]) -> str:
    style = ' class="paper"' if name.startswith("paper: ") else ""
    return f'<tr{style}><th scope="row">{_text(name)}</th>{"".join(map(_cell, cells))}</tr>'


def _cell(cell: Cell) -> str:
    text = _text(cell.text)
    if cell.link is not None:
        text = f'<a href="{html.escape(cell.link, quote=True)}">{text}</a>'
    style = "number tied" if cell.tied else "number"
    return f'<td class="{style}">{text}</td>'


def _text(text: str) -> str:
    return html.escape(clean(text), quote=True)
