"""Unnatural Instructions: 68,478 instances that text-davinci-002 wrote from 15 examples."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.raw_files import as_object, list_field, read_jsonl, text_field
from tasks.templates import SEED, encode_instruction, single_turn
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register

NAME = "unnatural_instructions"
FILE = "core_data.jsonl"
NO_CONSTRAINTS = ("", "none", "none.")
"""What `constraints` says, in any case, where there are none."""


def read(
    raw_dir: Path, *, num_examples: int | None = None, faults: Faults | None = None, **_: Any
) -> Iterator[Conversation]:
    """One conversation for each instance of each line; ids count instances.

    With `num_examples`, that many are sampled after templating, and numbered as drawn.
    """
    rng = random.Random(SEED)
    numbers = itertools.count()

    def convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
        instruction = text_field(row, "instruction", at=at)
        instances = list_field(row, "instances", at=at)
        texts = [_texts(instruction, value, at) for value in instances]
        for question, context, answer in texts:
            prompt, completion = encode_instruction(question, answer, context=context, rng=rng)
            yield single_turn(NAME, next(numbers), prompt=prompt, completion=completion)

    conversations = convert_rows(read_jsonl(Path(raw_dir) / FILE, faults), convert, faults)
    return conversations if num_examples is None else _sample(conversations, num_examples, rng)


def _texts(instruction: str, value: Any, at: str) -> tuple[str, str, str]:
    """Instruction with its constraints, input and output of one instance."""
    instance = as_object(value, "instance", at=at)
    constraints = text_field(instance, "constraints", at=at, optional=True)
    if constraints.lower() not in NO_CONSTRAINTS:
        instruction = f"{instruction}\n{constraints}"
    context = text_field(instance, "input", at=at, optional=True)
    return instruction, context, text_field(instance, "output", at=at)


def _sample(
    conversations: Iterator[Conversation], count: int, rng: random.Random
) -> Iterator[Conversation]:
    drawn = list(conversations)
    if count < len(drawn):
        drawn = rng.sample(drawn, count)
    for index, conversation in enumerate(drawn):
        yield {**conversation, "id": f"{NAME}_{index}"}


SPEC = register(
    DatasetSpec(
        name=NAME,
        version="1.0.0",
        description="Instructions, inputs and outputs generated from a handful of examples.",
        citation="""@inproceedings{honovich2023unnatural,
  title = {Unnatural Instructions: Tuning Language Models with (Almost) No Human Labor},
  author = {Or Honovich and Thomas Scialom and Omer Levy and Timo Schick},
  booktitle = {ACL},
  year = {2023},
}""",
        licence="MIT",
        homepage="https://github.com/orhonovich/unnatural-instructions",
        sources=(
            Source(
                "https://github.com/orhonovich/unnatural-instructions/raw/main/data/core_data.zip",
                FILE,
                packed="zip",
                member=FILE,
            ),
        ),
        expected_examples={"train": 68_478},
        options={"num_examples": None},
        read=read,
    )
)
