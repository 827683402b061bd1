"""The table of a report, before it has a format: rows of cells, and the words below."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from eval.report.board import Board, Difference, Model
from eval.report.paper import PaperRow, paper_data
from eval.report.tasks import AVERAGES, Number, task_of
from tulu_jax.errors import DataError

TITLES = {average.name: average.title for average in AVERAGES}
Layout = Literal["auto", "models", "benchmarks"]

MOST_COLUMNS = 6
"""So many models and rows of the paper stand side by side; more stand one below the other."""


@dataclass(frozen=True)
class Cell:
    """One number of a table, or a dash. `n` is given where it is not the line's."""

    number: Number | None = None
    n: int | None = None
    tied: bool = False
    difference: Difference | None = None
    link: str | None = None
    """Where it comes from, as an address."""

    @property
    def text(self) -> str:
        """The number with its standard error.

        >>> Cell(Number(31.04, 1.26, 200), n=200, tied=True).text
        '31.0 ±1.3† (n 200)'
        """
        if self.number is None:
            return "–"
        error = "" if math.isnan(self.number.stderr) else f" ±{self.number.stderr:.1f}"
        n = f" (n {self.n:,})" if self.n is not None else ""
        return f"{self.number.value:.1f}{error}{'†' if self.tied else ''}{n}"

    @property
    def difference_text(self) -> str:
        """The difference to the base, or nothing: `(+3.1*)` where it is beyond chance."""
        if self.difference is None:
            return ""
        return f"({self.difference.value:+.1f}{'*' if self.difference.found else ''})"


@dataclass(frozen=True)
class TextCell(Cell):
    """A cell that says something else."""

    words: str = "–"

    @property
    def text(self) -> str:
        """The words."""
        return self.words


@dataclass(frozen=True)
class Grid:
    """A table: `counts` are the n of its lines, in a column of their own or below the header."""

    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    counts: list[int | None] | None
    """None where lines have none."""
    by_row: bool
    """Whether `counts` belong to the rows, else to the columns."""
    paper_from: int
    """The first column (or row) of the paper."""
    notes: list[str]


def make_grid(board: Board, *, layout: Layout = "auto", by_dataset: bool = False) -> Grid:
    """The table of a board.

    Args:
      board: what is shown.
      layout: what the rows are; `auto` are benchmarks while few models are shown.
      by_dataset: whether models are named by what they were trained on.

    Raises: DataError, with `by_dataset`, for a model that does not say it.
    """
    lines = table_lines(board)
    sources: list[tuple[str, Callable[[str], Cell]]] = [
        (_label(model, by_dataset), _cells(model)) for model in board.models
    ]
    sources += [
        (f"paper: {row.data if by_dataset else row.title}", _paper_cells(row))
        for row in board.paper
    ]
    counts = [_common_n(task, [cell for _, cell in sources]) for task in lines]
    table = [
        [_without_n(cell(task), n) for task, n in zip(lines, counts, strict=True)]
        for _, cell in sources
    ]
    titles = [TITLES.get(task) or task_of(task).title for task in lines]
    names = [name for name, _ in sources]
    transposed = layout == "benchmarks" or (layout == "auto" and len(names) <= MOST_COLUMNS)
    if transposed:
        columns, rows = names, [*zip(titles, map(list, zip(*table, strict=True)), strict=True)]
    else:
        columns, rows = titles, [*zip(names, table, strict=True)]
    corner = "benchmark" if transposed else ("dataset" if by_dataset else "model")
    return Grid(corner, columns, rows, counts, transposed, len(board.models), notes(board))


def table_lines(board: Board) -> list[str]:
    """The tasks that a model here has, then the averages, also those of the paper alone."""
    return [*board.tasks, *board.averages]


def _label(model: Model, by_dataset: bool) -> str:
    if not by_dataset:
        return model.name
    if model.dataset is None:
        raise DataError(
            "a model does not say what it was trained on",
            got=repr(model.name),
            at=next(iter(model.results.values())).folder,
            expected="a dataset in run.json, model",
            do="leave --datasets away to have models by their names",
        )
    return paper_data(model.dataset)


def _cells(model: Model) -> Callable[[str], Cell]:
    def cell(task: str) -> Cell:
        number = model.numbers.get(task)
        return Cell(
            number,
            number.n if number else None,
            tied=task in model.tied,
            difference=model.differences.get(task),
        )

    return cell


def _paper_cells(row: PaperRow) -> Callable[[str], Cell]:
    def cell(task: str) -> Cell:
        number = row.numbers.get(task)
        return Cell(number, number.n if number else None)

    return cell


def _common_n(task: str, cells: list[Callable[[str], Cell]]) -> int | None:
    """The n that most numbers of a benchmark have; ours first where there are as many."""
    found = Counter(n for cell in cells if (n := cell(task).n) is not None)
    return found.most_common(1)[0][0] if found else None


def _without_n(cell: Cell, n: int | None) -> Cell:
    own = None if cell.n == n else cell.n
    return Cell(cell.number, own, cell.tied, cell.difference)


def notes(board: Board) -> list[str]:
    """What the marks of the table mean."""
    said = ["±: standard error; shares in per cent; n: instances"]
    if any(model.tied for model in board.models):
        said.append(
            "†: statistically tied with the best, which is in the set (paired tests at 5 %, Holm)"
        )
    if board.base is not None:
        said.append(f"(+/-): points more or less than {board.base}; *: beyond chance (5 %, Holm)")
    lower = sorted(
        {
            task_of(t).title
            for m in board.models
            for t, r in m.results.items()
            if not r.higher_is_better
        }
    )
    if lower:
        said.append(f"lower is better: {', '.join(lower)}")
    for average in AVERAGES:
        lacking = [average.lacking(model.numbers) for model in board.models]
        if average.name in board.averages and any(lacking):
            names = ", ".join(task_of(task).title for task in min(filter(None, lacking), key=len))
            said.append(f"{average.title}: not without {names}")
    said += [f"paper: {row.title}: {'; '.join(row.sources)}" for row in board.paper]
    return said
