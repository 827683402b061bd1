"""Sections of the report that other commands fill in: plain dicts, checked before they are shown.

A section is `{"title": ..., "note": ..., "blocks": [...]}`; `note`, a sentence, may be left out.
Its blocks are of these kinds, all of plain JSON values; `title` may be left out:

    {"kind": "table", "title": ..., "columns": [text, ...], "rows": [[text or number, ...], ...]}
    {"kind": "bars", "title": ..., "items": [[label, number], ...], "unit": ...}
    {"kind": "histogram", "title": ..., "edges": [n + 1 numbers], "counts": [n], "unit": ...}
    {"kind": "text", "text": ...}
    {"kind": "quotes", "title": ..., "items": [{"label": ..., "text": ...}, ...]}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tulu_jax.errors import DataError

Section = Mapping[str, Any]


def check_sections(sections: Sequence[Section]) -> None:
    """Passes when every section can be shown.

    Raises: DataError naming the block and what is wrong with it.
    """
    for section in sections:
        title = section.get("title")
        if not isinstance(title, str) or not isinstance(section.get("blocks"), list | tuple):
            raise DataError("not a section of a report", got=repr(section)[:80],
                            expected='{"title": text, "blocks": [...]}')  # fmt: skip
        for number, block in enumerate(section["blocks"]):
            problem = _problem(block)
            if problem:
                at = f"section {title!r}, block {number}"
                raise DataError("block cannot be shown", got=problem, at=at)


def _problem(block: Any) -> str | None:
    """What is wrong with a block, or None."""
    kind = block.get("kind") if isinstance(block, Mapping) else None
    check = _CHECKS.get(kind) if isinstance(kind, str) else None
    if check is None:
        return f"kind {kind!r}, not one of {', '.join(_CHECKS)}"
    try:
        return None if check(block) else f"fields that do not make a {kind}"
    except (KeyError, TypeError, ValueError) as error:
        return f"{type(error).__name__} {error} in a {kind}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _table(block: Mapping[str, Any]) -> bool:
    width = len(block["columns"])
    cells = [cell for row in block["rows"] for cell in row]
    return all(len(row) == width for row in block["rows"]) and all(
        cell is None or isinstance(cell, str) or _number(cell) for cell in cells
    )


def _bars(block: Mapping[str, Any]) -> bool:
    return all(isinstance(label, str) and _number(n) and n >= 0 for label, n in block["items"])


def _histogram(block: Mapping[str, Any]) -> bool:
    edges, counts = block["edges"], block["counts"]
    rising = all(a < b for a, b in itertools.pairwise(edges))
    return len(edges) == len(counts) + 1 > 1 and rising and all(map(_number, [*edges, *counts]))


def _text(block: Mapping[str, Any]) -> bool:
    return isinstance(block["text"], str)


def _quotes(block: Mapping[str, Any]) -> bool:
    return all(
        isinstance(item["label"], str) and isinstance(item["text"], str) for item in block["items"]
    )


_CHECKS = {
    "table": _table,
    "bars": _bars,
    "histogram": _histogram,
    "text": _text,
    "quotes": _quotes,
}
