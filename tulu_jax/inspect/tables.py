"""The look of this room's tables, and of the numbers in them."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table


def plain_table(name: str, *columns: str, padding: tuple[int, int] = (0, 1)) -> Table:
    """A table of at most 100 columns: `name` heads the rows' names, `columns` their numbers."""
    table = Table(box=SIMPLE_HEAD, padding=padding, caption_justify="left")
    table.add_column(name, style="bold", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def short_count(count: int) -> str:
    """A count in at most six characters: 950, 12.3k, 1.41M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def share_text(part: int, whole: int) -> str:
    """A share in percent with one digit.

    >>> share_text(1, 3), share_text(0, 0)
    ('33.3%', '0.0%')
    """
    return f"{part / whole if whole else 0:.1%}"
