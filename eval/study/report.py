"""A study's report: its sections, and as text for the terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from eval.report import formats
from eval.study.findings import findings
from eval.study.judged import human_section, judge_section
from eval.study.results import Findings
from eval.study.tables import (
    Link,
    Section,
    benchmarks_section,
    cells_section,
    datasets_section,
    losses_section,
    models_section,
    number_rows,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_WARNINGS = 40
"""So many remarks on results are told."""


def sections(found: Findings, place: Link) -> list[Section]:
    """The parts of a report; `place` says where a number of a file leads to.

    Raises: DataError for files of results that cannot be read.
    """
    made = [
        datasets_section(found, place),
        models_section(found),
        losses_section(found, place),
        *findings(found),
        *judge_section(found, place),
        human_section(found.table),
        benchmarks_section(found, place),
        cells_section(found, place),
        _remarks(found.board.warnings),
    ]
    return [one for one in made if one is not None]


def _remarks(warnings: list[str]) -> Section | None:
    if not warnings:
        return None
    more = len(warnings) - MOST_WARNINGS
    said = (*warnings[:MOST_WARNINGS], *([f"and {more:,} more"] if more > 0 else []))
    return Section("remarks", "To know before comparing", said)


def title_of(found: Findings) -> str:
    """The report's title."""
    return f"Study {found.table.study.name}"


def summary(found: Findings) -> str:
    """How much of the study it is of."""
    done = sum(one.state == "done" for one in found.outcomes)
    trained = sum(bool(one.cell.of("train")) for one in found.outcomes)
    return (
        f"{len(found.outcomes)} cells ({trained} trained), {done} done; "
        f"{len(found.board.tasks)} tasks"
    )


def terminal(made: list[Section], width: int) -> Iterator[RenderableType]:
    """The sections for a terminal so wide."""
    from rich.text import Text

    for one in made:
        yield Text(f"\n{one.title}", style="bold")
        yield from (Text(formats.clean(line)) for line in one.text)
        for grid in one.tables:
            yield from formats.terminal(grid, width)
            yield from (Text(formats.clean(note), style="dim") for note in grid.notes)


def markdown(found: Findings, made: list[Section]) -> str:
    """The report in GitHub's Markdown; figures are on the page alone."""
    lines = [f"# {formats.escaped(title_of(found))}", "", f"{summary(found)}.", ""]
    for one in made:
        lines += [f"## {formats.escaped(one.title)}", ""]
        lines += [f"- {formats.escaped(line)}" for line in one.text]
        lines += [""] if one.text else []
        lines += [formats.markdown(grid) for grid in one.tables]
    return "\n".join(lines).rstrip("\n") + "\n"


def latex(made: list[Section]) -> str:
    """Every table in LaTeX, for booktabs and xcolor; findings are comments above it."""
    parts = []
    for one in made:
        said = [f"% {formats.clean(line)}\n" for line in (one.title, *one.text)]
        parts.append("".join([*said, *(formats.latex(grid) for grid in one.tables)]))
    return "\n".join(parts)


FIELDS = ("cell", "model", "dataset", "config_hash", "task", "metric", "value", "stderr", "n",
          "from")  # fmt: skip


def as_csv(found: Findings) -> str:
    """A line a number, with all its digits."""
    stream = io.StringIO()
    writer: Any = csv.DictWriter(stream, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(number_rows(found))
    return stream.getvalue()
