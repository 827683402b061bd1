"""What judges and people preferred in a study: win rates against unique tokens, acceptance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from eval.annotate.chart import win_chart
from eval.annotate.figures import Share, compute
from eval.annotate.records import Annotation
from eval.annotate.sheet import read_sheet
from eval.judge.bias import correlate
from eval.report.grid import Cell, Grid
from eval.report.paper import read_records
from eval.report.tasks import task_of
from eval.study.cells import Table
from eval.study.paper import plain_label
from eval.study.people import database
from eval.study.results import Findings, Outcome
from eval.study.state import state_of
from eval.study.tables import Link, Section, words
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import read_json

PAPER_R = 0.96
"""Over models, win rates of GPT-4 against the mean of unique tokens: section 5.2 and figure 2."""
WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 14, 44


@dataclass(frozen=True)
class Point:
    """A model by how many different tokens (or words) its outputs have, and how often it wins."""

    name: str
    unique: float
    win_rate: float
    within: float | None
    """Pearson's r of the two over its instances."""


def judge_section(found: Findings, place: Link) -> list[Section]:
    """The judge's bias to length, a section a task that is judged by pairs."""
    return [one for task in found.board.tasks if (one := _judge(found, task, place)) is not None]


def _judge(found: Findings, task: str, place: Link) -> Section | None:
    read = [(one, _metrics(one, task)) for one in found.scored if task in one.model.numbers]
    points = [
        (one, point, said)
        for one, said in read
        if said is not None and (point := _point(one, said)) is not None
    ]
    if not points:
        return None
    of = str(points[0][2].get("unique_of", "tokens"))
    over = correlate([p.unique for _, p, _ in points], [p.win_rate for _, p, _ in points])
    rows: list[tuple[str, list[Cell]]] = []
    for one, point, _ in points:
        rows.append((one.name, [
            words(f"{point.win_rate:.1f}", place(f"{one.folder(task)}/metrics.json")),
            words(f"{point.unique:.1f}"),
            words("–" if point.within is None else f"{point.within:.2f}"),
        ]))  # fmt: skip
    columns = ["win rate", f"unique {of}, mean", "r over its instances"]
    grid = Grid("cell", columns, rows, None, False, len(rows), [f"judge: {points[0][2]['judge']}"])
    text = [_over_models(over, of), *_over_instances([p for _, p, _ in points], of)]
    figure = scatter([point for _, point, _ in points], of, over["r"] is not None)
    title = f"The judge and length: {task_of(task).title} (the paper's figure 2)"
    return Section(f"judge-{task}", title, (*text,), (grid,), figure)


def _over_models(over: dict[str, Any], of: str) -> str:
    if over["r"] is None:
        return f"Over {over['n']} models no correlation with unique {of} can be told."
    low, high = over["r_interval"]
    return (
        f"Over {over['n']} models win rates follow the mean number of unique {of} with "
        f"r = {over['r']:.2f} [{low:.2f}, {high:.2f}]; the paper's GPT-4: r = {PAPER_R}."
    )


def _over_instances(points: list[Point], of: str) -> list[str]:
    known = sorted(point.within for point in points if point.within is not None)
    if not known:
        return []
    return [
        f"Over the instances of one model preference follows the difference in unique {of} with "
        f"r from {known[0]:.2f} to {known[-1]:.2f} ({len(known)} models)."
    ]


def _metrics(one: Outcome, task: str) -> dict[str, Any] | None:
    """The metrics of a task that is judged by pairs; None of another."""
    if not task_of(task).name.startswith("alpaca_eval"):
        return None
    said = read_json(one.model.results[task].folder / "metrics.json", DataError,
                     expected="a result of `tulu eval`")  # fmt: skip
    judged = isinstance(said, dict) and {"judge", "lengths", "win_rate"} <= said.keys()
    return said if judged else None


def _point(one: Outcome, said: dict[str, Any]) -> Point | None:
    rate, unique = said["win_rate"], said["lengths"]["unique"]["mean"]
    if rate is None or unique is None:
        return None
    within = said.get("bias", {}).get("unique", {}).get("r")
    return Point(one.name, float(unique), float(rate), within)


def scatter(points: list[Point], of: str, line: bool) -> str:
    """Models by unique tokens and win rate as SVG without style, with the straight line."""
    xs, ys = [p.unique for p in points], [p.win_rate for p in points]
    x0, x1 = _ends(xs)
    y0, y1 = max(0.0, _ends(ys)[0]), min(100.0, _ends(ys)[1])

    def at(x: float, y: float) -> tuple[float, float]:
        return (LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM))  # fmt: skip

    parts = [
        f'<svg class="chart scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Win rate of {len(points)} models against unique {escape(of)}">'
    ]
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(x0 + part * (x1 - x0), y0 + part * (y1 - y0))
        parts += [
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>',
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{x0 + part * (x1 - x0):.0f}</text>",
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{y0 + part * (y1 - y0):.0f}</text>",
        ]
    parts += [
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"unique {escape(of)} in an output, mean</text>",
        f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        "win rate, per cent</text>",
    ]
    if line and len(points) > 1:
        parts.append(_line(xs, ys, at))
    for point in points:
        x, y = at(point.unique, point.win_rate)
        name = escape(point.name)
        parts.append(
            f"<g><title>{name}: {point.win_rate:.1f} %, {point.unique:.1f}</title>"
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<text class="label" x="{x + 7:.1f}" y="{y + 4:.1f}">{name}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def _line(xs: list[float], ys: list[float], at: Any) -> str:
    """The least squares line between the ends of the points."""
    mx, my = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    spread = math.fsum((x - mx) ** 2 for x in xs)
    slope = math.fsum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / spread
    (a, b), (c, d) = (at(x, my + slope * (x - mx)) for x in (min(xs), max(xs)))
    return f'<line class="fit" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'


def _ends(values: list[float]) -> tuple[float, float]:
    """A range that holds them with room at both ends."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or max(1.0, 0.1 * abs(high))
    return low - room, high + room


# ---- people --------------------------------------------------------------------------------------
def human_section(table: Table) -> Section | None:
    """What people said of pairs of models: of the study's own web applications, and of sheets.

    Raises: DataError for a sheet that cannot be read; ConfigError for such a database.
    """
    answers = [one for sheet in table.study.human_sheets for one in read_sheet(Path(sheet))[0]]
    for one in table.people:
        if state_of(table.root, one.step) == "done":
            answers += _answers(table.root / database(one.step))
    if not answers:
        return None
    figures = compute(answers)
    theirs = {
        plain_label(record["label"]): record["human_acceptance_pct"]
        for record in read_records()
        if record["human_acceptance_pct"]
    }
    rows: list[tuple[str, list[Cell]]] = []
    for pair in figures.pairs:
        for name in pair.models:
            other = next(one for one in pair.models if one != name)
            rows.append((f"{name} against {other}", [
                words(str(pair.n)), words(_share(pair.acceptance[name])),
                words(_share(pair.wins[name])), words(_share(pair.wins["tie"])),
            ]))  # fmt: skip
    for label, value in theirs.items():
        row = [words("–"), words(f"{float(value):.1f}"), words("–"), words("–")]
        rows.append((f"paper: {label}", [*row]))
    grid = Grid("model", ["instances", "acceptable, %", "preferred, %", "tie, %"], rows, None,
                False, len(rows), ["intervals of 95 %, bootstrap over instances"])  # fmt: skip
    said = (f"{figures.annotations:,} annotations of {figures.evaluators} people.",)
    return Section("human", "Human evaluation (figure 3)", said, (grid,), win_chart(figures.pairs))


def _answers(path: Path) -> list[Annotation]:
    """What people have said so far in a web application."""
    try:
        from eval.annotate.store.annotations import read_annotations
        from eval.annotate.store.database import open_database
    except ModuleNotFoundError as error:
        raise ConfigError("packages of human evaluation are missing", got=error.name,
                          do="pip install 'tulu-jax[annotate]'") from error  # fmt: skip
    opened = open_database(str(path))
    try:
        return read_annotations(opened)
    finally:
        opened.close()


def _share(one: Share) -> str:
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
