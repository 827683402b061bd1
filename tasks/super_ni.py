"""Super-NaturalInstructions: up to 80 instances of each training task, in many languages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.raw_files import as_object, as_text, list_field, read_json_object, text_field
from tasks.templates import SEED, encode_few_shot, encode_instruction, single_turn
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register
from tulu_jax.errors import DataError

TASKS = "splits/xlingual/train_tasks.txt"
LEAKED = "_mmmlu_"
"""In the name of tasks that are left out, because they are a benchmark's test questions."""

ARCHIVE = "https://github.com/allenai/natural-instructions/archive/refs/heads/master.zip"


@dataclass(frozen=True)
class Instance:
    """One instance of a task; `position` is its place among those sampled."""

    instruction: str
    exemplars: list[Any]
    position: int
    fields: dict[str, Any]


def read(
    raw_dir: Path,
    *,
    zero_shot_per_task: int = 60,
    few_shot_per_task: int = 20,
    num_exemplars: int = 2,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """The sampled instances task by task, in the order of the list of tasks.

    A task with more instances than the two numbers together is sampled. The first
    `zero_shot_per_task` get a template each, the rest `num_exemplars` of the task's positive
    examples each, so that a small task has no few-shot row. The answer is the first output; where
    `output` is one text and not a list, as in no file upstream, it is the text's first character,
    as in the reference.

    Raises: DataError when the list or the file of a task is missing or malformed.
    """
    rng = random.Random(SEED)

    def convert(index: int, row: Instance, *, at: str) -> Iterator[Conversation]:
        question = text_field(row.fields, "input", at=at)
        answer = _first_output(row.fields, at)
        if row.position < zero_shot_per_task:
            prompt, completion = encode_instruction(
                row.instruction, answer, context=question, rng=rng
            )
        else:
            shown = row.exemplars
            if num_exemplars < len(shown):
                shown = rng.sample(shown, num_exemplars)
            shots = [_shot(exemplar, at) for exemplar in shown]
            prompt, completion = encode_few_shot(row.instruction, answer, shots, question=question)
        number = text_field(row.fields, "id", at=at)
        yield single_turn("super_ni", number, prompt=prompt, completion=completion)

    limit = zero_shot_per_task + few_shot_per_task
    return convert_rows(_instances(Path(raw_dir), limit, rng, faults), convert, faults)


def _instances(
    folder: Path, limit: int, rng: random.Random, faults: Faults | None
) -> Iterator[tuple[str, Instance]]:
    for task in _task_names(folder / TASKS):
        path = folder / "tasks" / f"{task}.json"
        fields = read_json_object(path, listed="Instances", faults=faults)
        instruction = _first_text(fields, "Definition", str(path))
        exemplars = list_field(fields, "Positive Examples", at=str(path))
        instances = fields["Instances"]
        if limit < len(instances):
            instances = rng.sample(instances, limit)
        for position, (at, instance) in enumerate(instances):
            yield at, Instance(instruction, exemplars, position, instance)


def _task_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read the list of tasks", got=error, at=path) from error
    names = [line.strip() for line in lines if line.strip() and LEAKED not in line]
    if not names:
        raise DataError("the list of tasks is empty", at=path, do="download the file again")
    return names


def _first_text(fields: dict[str, Any], name: str, at: str) -> str:
    texts = list_field(fields, name, at=at)
    if not texts:
        raise DataError(f"field {name!r} is empty", at=at, expected="a list of at least one text")
    return as_text(texts[0], f"the first of {name!r}", at=at)


def _first_output(fields: dict[str, Any], at: str) -> str:
    output = fields.get("output")
    return output[0] if isinstance(output, str) and output else _first_text(fields, "output", at)


def _shot(exemplar: Any, at: str) -> tuple[str, str]:
    fields = as_object(exemplar, "positive example", at=at)
    return text_field(fields, "input", at=at), text_field(fields, "output", at=at)


SPEC = register(
    DatasetSpec(
        name="super_ni",
        version="1.0.0",
        description="Classic tasks with instructions written by people, zero- and few-shot.",
        citation="""@inproceedings{wang2022super,
  title = {Super-NaturalInstructions: Generalization via Declarative Instructions on 1600+ NLP
           Tasks},
  author = {Yizhong Wang and Swaroop Mishra and Pegah Alipoormolabashi and Yeganeh Kordi and
            others},
  booktitle = {EMNLP},
  year = {2022},
}""",
        licence="Apache-2.0",
        homepage="https://github.com/allenai/natural-instructions",
        sources=tuple(
            Source(ARCHIVE, path, packed="zip", member=f"natural-instructions-master/{path}")
            for path in (TASKS, "tasks")
        ),
        expected_examples={"train": 96_913},
        options={"zero_shot_per_task": 60, "few_shot_per_task": 20, "num_exemplars": 2},
        read=read,
    )
)
