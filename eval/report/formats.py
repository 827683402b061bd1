"""A report's table as text: for the terminal, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from eval.report.grid import Cell, Grid
from eval.report.tasks import Number
from tulu_jax.console import one_line, visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from eval.report.board import Board, Model

LONGEST_NAME = 60


def terminal(grid: Grid, width: int) -> Iterator[Table]:
    """The table for a terminal so wide, in as many parts as that takes.

    Better than the base is green, worse red.
    """
    from rich.table import Table

    lines = _lines(grid)
    names = 2 if grid.by_row else 1  # columns that each part has
    for columns in _parts(lines, names, width):
        table = Table()
        for i in columns:
            table.add_column(_name(lines[0][i]), justify="right" if i else "left")
        for line in lines[1:]:
            table.add_row(*(_text(line[i]) for i in columns))
        yield table


def _parts(lines: list[list[str | Cell]], names: int, width: int) -> Iterator[list[int]]:
    """The columns of each part."""

    def wide(column: int) -> int:
        return 3 + max(_text(line[column]).cell_len for line in lines)

    always = list(range(names))
    room = width - 1 - sum(map(wide, always))
    part, used = [], 0
    for column in range(names, len(lines[0])):
        if part and used + wide(column) > room:
            yield always + part
            part, used = [], 0
        part.append(column)
        used += wide(column)
    yield always + part


def _text(cell: str | Cell) -> Text:
    from rich.text import Text

    if isinstance(cell, str):
        return Text(_name(cell))
    style = "bold" if cell.tied else ""
    text = Text(visible(cell.text), style=f"{style} link {cell.link}" if cell.link else style)
    if cell.difference is not None:
        style = "green" if cell.difference.good else "red"
        text.append(f" {cell.difference_text}", style if cell.difference.found else f"dim {style}")
    return text


def markdown(grid: Grid) -> str:
    """The table in GitHub's Markdown, notes below it; the tied are bold."""
    head, *body = _lines(grid)
    lines = [[_markdown(_name(name)) for name in head], [":--", *["--:"] * (len(head) - 1)]]
    for row in body:
        lines.append(
            [_markdown_cell(c) if isinstance(c, Cell) else _markdown(_name(c)) for c in row]
        )
    notes = "".join(f"\n- {_markdown(note)}" for note in grid.notes)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n{notes}\n"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(cell.text)
    text = f"**{text}**" if cell.tied else text
    text = text if cell.link is None else f"[{text}]({cell.link})"
    return f"{text} {_markdown(cell.difference_text)}".strip()


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]#&])", r"\\\1", text)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "†": r"$^\dagger$", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def latex(grid: Grid) -> str:
    """The table in LaTeX, for booktabs and xcolor; the tied are bold."""
    head, *body = _lines(grid)
    lines = [
        "% needs \\usepackage{booktabs,xcolor}",
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        " & ".join(_latex(_name(name)) for name in head) + r" \\",
        "\\midrule",
    ]
    for row in body:
        cells = [_latex_cell(c) if isinstance(c, Cell) else _latex(_name(c)) for c in row]
        lines.append(" & ".join(cells) + r" \\")
    notes = [f"% {note}".replace("\n", " ") for note in map(clean, grid.notes)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *notes]) + "\n"


def escaped(text: str) -> str:
    """A text as Markdown that shows it."""
    return _markdown(clean(text))


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    text = f"\\textbf{{{text}}}" if cell.tied else text
    if cell.difference is None:
        return text
    colour = "green!50!black" if cell.difference.good else "red!70!black"
    return f"{text} \\textcolor{{{colour}}}{{{_latex(cell.difference_text)}}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


FIELDS = [
    *("model", "dataset", "source", "task", "benchmark", "metric", "value", "stderr", "n", "unit"),
    *("higher_is_better", "tied_with_best"),
    *("difference_to_base", "difference_stderr", "difference_p"),
]


def as_csv(board: Board) -> str:
    """A line a number, ours and the paper's; numbers with all their digits."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    for model in board.models:
        for task, number in model.numbers.items():
            writer.writerow(_record(model, task, number))
    for row in board.paper:
        for task, number in row.numbers.items():
            writer.writerow({"model": row.title, "dataset": row.data, "source": "paper",
                             "task": task, **_plain(number)})  # fmt: skip
    return _encodable(stream.getvalue())


def _record(model: Model, task: str, number: Number) -> dict[str, Any]:
    record: dict[str, Any] = {
        "model": model.name,
        "dataset": model.dataset or "",
        "source": "run",
        "task": task,
        **_plain(number),
    }
    result = model.results.get(task)
    if result is not None:
        record |= {
            "benchmark": result.benchmark,
            "metric": result.metric,
            "unit": "percent" if result.unit == "share" else result.unit,
            "higher_is_better": result.higher_is_better,
            "tied_with_best": task in model.tied,
        }
    difference = model.differences.get(task)
    if difference is not None:
        record |= {
            "difference_to_base": difference.value,
            "difference_stderr": _known(difference.stderr),
            "difference_p": _known(difference.p),
        }
    return record


def _plain(number: Number) -> dict[str, Any]:
    n = "" if number.n is None else number.n
    return {"value": number.value, "stderr": _known(number.stderr), "n": n}


def _known(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _lines(grid: Grid) -> list[list[str | Cell]]:
    """The grid line by line, with the n of its lines."""
    if grid.counts is None:
        return [[grid.corner, *grid.columns], *([name, *cells] for name, cells in grid.rows)]
    counts = ["" if n is None else f"{n:,}" for n in grid.counts]
    if grid.by_row:
        head: list[str | Cell] = [grid.corner, "n", *grid.columns]
        rows = [[name, n, *cells] for (name, cells), n in zip(grid.rows, counts, strict=True)]
        return [head, *rows]
    return [[grid.corner, *grid.columns], ["n", *counts], *([n, *cells] for n, cells in grid.rows)]


def _name(text: str | Cell) -> str:
    """A name on one line, without control characters."""
    return one_line(_encodable(str(text)), LONGEST_NAME)


def clean(text: str) -> str:
    """A text of any length on one line, without control characters."""
    return one_line(_encodable(text), 10_000)


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
