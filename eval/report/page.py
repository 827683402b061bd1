"""The report as one page that needs no network: table, bars by skill and group, instances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.harness import statistics
from eval.harness.reading import Result, Unit
from eval.report.board import Board, Difference, Model
from eval.report.grid import TITLES, notes, table_lines
from eval.report.sample import Sample
from eval.report.tasks import Number, task_of
from tulu_jax.inspect.html import page

LARGEST = 2_000_000
"""Of a page, in bytes."""

MOST = 200
"""So many groups of a task are drawn, and so many warnings told."""

HERE = Path(__file__).parent / "page"
PARTS = {
    "kind": "tulu report",
    "scripts": (*page.FRAME, *(HERE / name for name in ("table.js", "bars.js", "instances.js",
                                                        "app.js")), page.SHELL),
    "styles": (page.HERE / "report.css", HERE / "report.css"),
}  # fmt: skip


def write_html(path: Path, board: Board, *, largest: int = LARGEST) -> Path:
    """The page of a board at `path`, of at most `largest` bytes.

    Of more instances than it has room for it holds a sample, and says so.

    Raises: DataError when the file cannot be written.
    """
    data = page.page_data(_title(board), _settings(board), page_content(board))
    without = len(page.render_page(data, **PARTS).encode(errors="backslashreplace"))
    sample = Sample(board, largest - without - 1000)
    data |= {"texts": sample.texts, "instances": sample.instances, "totals": sample.totals}
    return page.write_page(path, data, **PARTS)


def page_content(board: Board) -> dict[str, Any]:
    """Everything on the page but the instances."""
    return {
        "models": [model.name for model in board.models],
        "base": board.base,
        "sources": [
            *({"name": m.name, "paper": False, "dataset": m.dataset} for m in board.models),
            *({"name": r.title, "paper": True, "dataset": r.data} for r in board.paper),
        ],
        "lines": [_line(board, task) for task in table_lines(board)],
        "most": MOST,
        "groups": {task: found[:MOST] for task in board.tasks if (found := _groups(board, task))},
        "notes": _some(notes(board)),
        "warnings": _some(board.warnings),
        "texts": [],
        "instances": [],
        "totals": {},
    }


def _some(lines: list[str]) -> list[str]:
    """The first of many lines, none very long: the page has its limit."""
    more = [f"and {len(lines) - MOST:,} more"] if len(lines) > MOST else []
    return [line if len(line) <= 600 else f"{line[:600]}…" for line in lines[:MOST]] + more


def _title(board: Board) -> str:
    names = ", ".join(model.name for model in board.models[:3])
    more = len(board.models) - 3
    return f"{names} and {more} more" if more > 0 else names


def _settings(board: Board) -> Mapping[str, str]:
    total = sum(len(r.instances) for m in board.models for r in m.results.values())
    return {
        "models": str(len(board.models)),
        "tasks": str(len(board.tasks)),
        "answers": f"{total:,}",
        **({"base": board.base} if board.base is not None else {}),
    }


def _line(board: Board, task: str) -> dict[str, Any]:
    """A benchmark's or an average's line of the table."""
    results = [model.results[task] for model in board.models if task in model.results]
    return {
        "task": task,
        "title": TITLES.get(task) or task_of(task).title,
        "skill": "average" if task in TITLES else task_of(task).skill,
        "metric": results[0].metric if results else None,
        "lower": bool(results) and not results[0].higher_is_better,
        "scale": results[0].scale if results else 100.0,
        "cells": [
            *(_cell(m.numbers.get(task), m, task) for m in board.models),
            *(_cell(row.numbers.get(task)) for row in board.paper),
        ],
    }


def _cell(number: Number | None, model: Model | None = None, task: str = "") -> Any:
    if number is None:
        return None
    difference = model.differences.get(task) if model else None
    return {
        **_number(number),
        "tied": model is not None and task in model.tied,
        "difference": _plain(difference) if difference else None,
    }


def _number(number: Number) -> dict[str, Any]:
    """A number as the page's scripts take it; `shown` is rounded as everywhere else."""
    return {
        "value": number.value,
        "shown": f"{number.value:.1f}",
        "stderr": _known(number.stderr),
        "n": number.n,
    }


def _plain(difference: Difference) -> dict[str, Any]:
    return {
        "shown": f"{difference.value:+.1f}",
        "p": _known(difference.p),
        "good": difference.good,
        "found": difference.found,
    }


def _groups(board: Board, task: str) -> list[dict[str, Any]]:
    """The groups of a task (subjects, languages), with every model's mean in them."""
    found: dict[str, list[Any]] = {}
    for i, model in enumerate(board.models):
        if task not in model.results:
            continue
        for name, number in _means(model.results[task]).items():
            found.setdefault(name, [None] * len(board.models))[i] = _number(number)
    return [{"name": name, "cells": cells} for name, cells in found.items()]


def _means(result: Result) -> dict[str, Number]:
    """The mean of each group; where a group is one cluster (MMLU), its instances are counted."""
    inside: dict[str, list[Unit]] = {}
    for unit in result.units.values():
        if unit.group is not None:
            inside.setdefault(unit.group, []).append(unit)
    numbers = {}
    for group, members in inside.items():
        values = [unit.value for unit in members]
        clusters = [unit.cluster for unit in members]
        alone = len(set(clusters)) == 1
        stderr = statistics.standard_error(values, None if alone else clusters)
        mean = statistics.mean(values)
        numbers[group] = Number(result.scale * mean, result.scale * stderr, len(members))
    return numbers


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
