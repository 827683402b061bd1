"""From a file's rows to conversations: one driver for every dataset, so that faults count alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation
from tulu_jax.errors import DataError

Convert = Callable[..., Iterable[Conversation]]
"""`convert(index, row, at=place)`: the conversations of one row; a generator will do."""


def convert_rows(
    rows: Iterable[tuple[str, Any]], convert: Convert, faults: Faults | None = None
) -> Iterator[Conversation]:
    """The conversations of all rows in order.

    `convert` gets the row's running number from 0, the row, and its place (`file, line n`). A row
    for which it raises DataError gives no conversation at all and goes to `faults` (None: is
    raised), as does one whose text no file can hold. Empty texts and lists of no message pass.

    >>> def convert(index, row, *, at):
    ...     yield {"dataset": "x", "id": f"x_{index}", "messages": []}
    >>> [made["id"] for made in convert_rows([("f, line 1", {}), ("f, line 2", {})], convert)]
    ['x_0', 'x_1']
    """
    faults = Faults(strict=True) if faults is None else faults
    for index, (at, row) in enumerate(rows):
        faults.saw()
        try:
            conversations = _convert(convert, index, row, at)
        except DataError as error:
            faults.skip(error)
        else:
            yield from conversations


def _convert(convert: Convert, index: int, row: Any, at: str) -> list[Conversation]:
    try:
        conversations = list(convert(index, row, at=at))
    except RecursionError as error:
        raise DataError("record is nested too deeply", at=at) from error
    for conversation in conversations:
        _check_text(conversation["id"], at)
        _check_text(conversation["dataset"], at)
        for message in conversation["messages"]:
            _check_text(message["content"], at)
    return conversations


def _check_text(text: str, at: str) -> None:
    """Passes for text that UTF-8 can hold.

    Raises: DataError for a lone surrogate, one half of a character that JSON wrote as two.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "text has half a character (a lone surrogate)",
            got=f"U+{ord(text[error.start]):04X}",
            at=at,
            expected="whole characters",
        ) from error
