"""The rooms of the code, and one picture of who may import whom."""

from __future__ import annotations

import ast
import dataclasses
import functools
import html
import itertools
from collections.abc import Mapping, Sequence

from website.source import ROOT

LAYOUT = ROOT / "tests" / "test_layout.py"

BESIDES = {
    "tulu_jax/cli": {"tasks", "eval", "eval/study"},
    "eval": {"tasks"},
    "eval/study": {"tasks", "eval"},
}
"""What rooms may import outside `tulu_jax`; tests/test_layout.py has it beside its table."""

NAMED = {"tulu_jax/cli": "The `tulu` command; the only room that knows gin"}
"""What rooms hold that have no docstring of their own."""

BOX_WIDTH, BOX_HEIGHT, GAP, ROW = 104, 38, 20, 84
SLOT = 10
"""Width that an arrow takes where it passes a row."""

Node = str | tuple[str, str, int]
"""A room, or the place where the arrow between two rooms passes a row."""


@functools.cache
def rooms() -> dict[str, set[str]]:
    """Room -> rooms whose code it may import."""
    tree = ast.parse(LAYOUT.read_text(encoding="utf-8"))
    table = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MAY_IMPORT"
    )
    return {
        room: {f"tulu_jax/{name}" for name in allowed} | BESIDES.get(room, set())
        for room, (allowed, _) in table.items()
    }


def room_of(path: str) -> str:
    """The room that a file is in: the longest that holds it."""
    inside = [room for room in rooms() if path.startswith(f"{room}/")]
    return max(inside, key=len, default="tulu_jax")


def about(room: str) -> str:
    """What a room holds: the first sentence of its docstring."""
    if room in NAMED:
        return NAMED[room]
    tree = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ")
    return first.split(". ")[0].rstrip(".")


def needed(allowed: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same graph without what follows through other rooms.

    >>> needed({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    {'a': {'b'}, 'b': {'c'}, 'c': set()}
    """
    below = closure(allowed)
    return {
        room: {one for one in of if not any(one in below[other] for other in of)}
        for room, of in allowed.items()
    }


def closure(allowed: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Room -> every room below it."""

    @functools.cache
    def below(room: str) -> frozenset[str]:
        return frozenset(allowed[room]).union(*(below(one) for one in allowed[room]))

    return {room: set(below(room)) for room in allowed}


def levels(allowed: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its row, counted from below: one above the highest that it imports."""

    @functools.cache
    def level(room: str) -> int:
        return 1 + max((level(one) for one in allowed[room]), default=-1)

    return {room: level(room) for room in allowed}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Rows of nodes from below, and the steps of arrows from one row to the next."""

    rows: list[list[Node]]
    steps: list[tuple[Node, Node]]


def arrange(allowed: Mapping[str, set[str]]) -> Drawing:
    """Rooms in rows, arrows led through the rows between, as few crossings as sorting finds."""
    row_of = levels(allowed)
    rows: list[list[Node]] = [[] for _ in range(max(row_of.values()) + 1)]
    for room in allowed:
        rows[row_of[room]].append(room)
    steps: list[tuple[Node, Node]] = []
    for room, of in needed(allowed).items():
        for one in sorted(of):
            between: list[Node] = [
                (room, one, row) for row in range(row_of[room] - 1, row_of[one], -1)
            ]
            for node, row in zip(between, range(row_of[room] - 1, row_of[one], -1), strict=True):
                rows[row].append(node)
            way: list[Node] = [room, *between, one]
            steps += itertools.pairwise(way)
    for turn in range(24):
        _sort(rows, steps, upwards=turn % 2 == 0)
    return Drawing(rows, steps)


def _sort(rows: list[list[Node]], steps: Sequence[tuple[Node, Node]], *, upwards: bool) -> None:
    """Puts each node at the mean place of its neighbours in the row before."""
    for row in range(1, len(rows)) if upwards else range(len(rows) - 2, -1, -1):
        centres = _centres(rows[row - 1 if upwards else row + 1])
        own = _centres(rows[row])

        def mean(node: Node, centres: dict = centres, own: dict = own) -> float:
            near = [b if a == node else a for a, b in steps if node in (a, b)]
            at = [centres[other] for other in near if other in centres]
            return sum(at) / len(at) if at else own[node]

        rows[row].sort(key=mean)


def _centres(row: Sequence[Node]) -> dict[Node, float]:
    """Horizontal centres of the nodes of a row that lies around 0."""
    widths = [BOX_WIDTH if isinstance(node, str) else SLOT for node in row]
    at = -(sum(widths) + GAP * (len(row) - 1)) / 2
    centres = {}
    for node, width in zip(row, widths, strict=True):
        centres[node] = at + width / 2
        at += width + GAP
    return centres


def picture(allowed: Mapping[str, set[str]], links: Mapping[str, str]) -> str:
    """One SVG: rooms as boxes, an arrow from each to what it may import."""
    drawing = arrange(allowed)
    centres = [_centres(row) for row in drawing.rows]
    half = max(abs(x) for row in centres for x in row.values()) + BOX_WIDTH / 2 + 8
    height = ROW * len(drawing.rows) - (ROW - BOX_HEIGHT) + 16
    top = {row: 8 + ROW * (len(drawing.rows) - 1 - row) for row in range(len(drawing.rows))}
    at = {
        node: (x + half, top[number])
        for number, row in enumerate(centres)
        for node, x in row.items()
    }
    lines = [
        f'<svg class="rooms" viewBox="0 0 {2 * half:.0f} {height}" role="img" '
        'aria-labelledby="rooms-title" xmlns="http://www.w3.org/2000/svg">',
        '<title id="rooms-title">Rooms of the code; arrows point to what a room may import</title>',
    ]
    lines += [_arrow(at, upper, lower) for upper, lower in drawing.steps]
    lines += [_box(room, at[room], links.get(room)) for room in allowed]
    return "\n".join([*lines, "</svg>"])


def _arrow(at: Mapping[Node, tuple[float, float]], upper: Node, lower: Node) -> str:
    (x, y), (to_x, to_y) = at[upper], at[lower]
    y += BOX_HEIGHT
    middle = (y + to_y) / 2
    path = f"M{x:.0f} {y:.0f} C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
    if not isinstance(lower, str):
        path += f" V{to_y + BOX_HEIGHT:.0f}"
    return f'<path d="{path}"/>'


def _box(room: str, at: tuple[float, float], link: str | None) -> str:
    x, y = at
    name = room.removeprefix("tulu_jax/")
    kind = "room" if room.startswith("tulu_jax/") else "room outside"
    box = (
        f'<g class="{kind}"><title>{html.escape(room)}: {html.escape(about(room))}</title>'
        f'<rect x="{x - BOX_WIDTH / 2:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="6"/>'
        f'<text x="{x:.0f}" y="{y + BOX_HEIGHT / 2 + 5:.0f}">{html.escape(name)}</text></g>'
    )
    return f'<a href="{link}">{box}</a>' if link else box


def table(allowed: Mapping[str, set[str]]) -> str:
    """The rooms as a table of Markdown: what each holds, and what it may import."""
    row_of = levels(allowed)
    lines = ["| room | holds | may import |", "|---|---|---|"]
    for room in sorted(allowed, key=lambda room: (-row_of[room], room)):
        may = ", ".join(sorted(one.removeprefix("tulu_jax/") for one in allowed[room]))
        lines.append(f"| `{room}` | {about(room)} | {may or 'none of these'} |")
    return "\n".join(lines)
