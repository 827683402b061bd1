"""Datasets of instruction, input and output: one reading for all of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from tasks.convert import convert_rows
from tasks.raw_files import Record, text_field
from tasks.templates import encode_instruction, single_turn
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation


def read_instructions(
    rows: Iterable[Record],
    dataset: str,
    *,
    rng: random.Random,
    faults: Faults | None = None,
    context: str = "input",
    answer: str = "output",
) -> Iterator[Conversation]:
    """Each row as a question under a template drawn from `rng`, with its answer.

    Args:
        rows: records with their places.
        dataset: what the conversations and their ids are called.
        rng: the dataset's own random stream; one draw a row.
        faults: takes the bad records; without it the first one is raised.
        context: the field of the input, which may be missing, null or blank.
        answer: the field of the output.
    """

    def convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
        prompt, completion = encode_instruction(
            text_field(row, "instruction", at=at),
            text_field(row, answer, at=at),
            context=text_field(row, context, at=at, optional=True),
            rng=rng,
        )
        yield single_turn(dataset, index, prompt=prompt, completion=completion)

    return convert_rows(rows, convert, faults)


def sample_rows(
    rows: Iterable[Record], count: int | None, *, rng: random.Random
) -> Iterable[Record]:
    """`count` of the rows in the order in which `rng.sample` draws them.

    With no `count`, or no more rows than that, all of them in their order and nothing is drawn.
    """
    if count is None:
        return rows
    rows = list(rows)
    return rng.sample(rows, count) if count < len(rows) else rows
