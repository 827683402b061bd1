"""The FLAN collections' rows, which are prompts already: `inputs` and `targets`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tasks.convert import convert_rows
from tasks.raw_files import Record, text_field
from tasks.templates import single_turn
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation


def read_inputs_targets(
    rows: Iterable[Record], dataset: str, *, faults: Faults | None = None
) -> Iterator[Conversation]:
    """Each row as one question and its answer; fields other than the two are not used."""

    def convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
        prompt = close_prompt(text_field(row, "inputs", at=at))
        completion = text_field(row, "targets", at=at)
        yield single_turn(dataset, index, prompt=prompt, completion=completion)

    return convert_rows(rows, convert, faults)


def close_prompt(prompt: str) -> str:
    r"""`prompt` with a newline after it, unless it has one or its last word ends in a colon.

    >>> close_prompt("Why?"), close_prompt("Why?\n"), close_prompt("A: "), close_prompt("A:\n ")
    ('Why?\n', 'Why?\n', 'A: ', 'A:\n ')
    """
    return prompt if prompt.endswith("\n") or prompt.rstrip().endswith(":") else prompt + "\n"
