"""The ways in which an instruction with or without an input becomes a prompt.

Source: paper-era open-instruct, `open_instruct/instruction_encode_templates.py` (June 2023). The
wording is the reference's, misspelling included, since the text is what models were trained on.
Each dataset draws from its own `random.Random(42)`, one draw a row, so that a result depends
neither on other datasets nor on the order of folders.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

SEED = 42


class Template(NamedTuple):
    """A prompt pattern, how often it is drawn, and what comes before the answer."""

    weight: float
    prompt: str
    answer_prefix: str = ""


_ALPACA_INTRO = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request."
)

WITH_INPUT = (
    Template(0.2, "{instruction}\n\n{input}\n\n"),
    Template(0.1, "{instruction}\n{input}\n\n"),
    Template(0.1, "{instruction}\n{input}\n"),
    Template(0.05, "{instruction}\n\nInput: {input}\n\nOutput:"),
    Template(0.05, "{instruction}\nInput: {input}\nOutput:"),
    Template(0.05, "{instruction}\n{input}\n\nResponse:"),
    Template(0.05, "{instruction}\n\nAdditional Context:\n{input}\n\nAnswer:"),
    Template(0.05, "Task: {instruction}\nInput: {input}\nOutput:"),
    Template(0.05, "Task: {instruction}\n\n{input}\n\n"),
    Template(0.05, "Task: {instruction}\n\n{input}\n\nAnswer:"),
    Template(
        0.05,
        "You need to complete the following task:\n\n{instruction}\n\n{input}\n\nAnswer:",
    ),
    Template(
        0.05,
        "{instruction}\n\nNow complete the following instance -\nInput: {input}\nOutput:",
    ),
    Template(0.05, "Instruction:{instruction}\n\nInput: {input}\n\n"),
    Template(
        0.1,
        _ALPACA_INTRO
        + "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
    ),
)

WITHOUT_INPUT = (
    Template(0.2, "{instruction}\n\n"),
    Template(0.1, "{instruction}\n"),
    Template(0.1, "{instruction}", "\n"),
    Template(0.05, "{instruction} Output:"),
    Template(0.05, "{instruction}\nResponse:"),
    Template(0.05, "{instruction}\n\nAnswer:"),
    Template(0.05, "Task: {instruction}\n\n"),
    Template(0.05, "Instruction: {instruction}\n"),
    Template(0.05, "Instruction: {instruction}\nOutput:"),
    Template(0.05, "You need to complete the following task:\n\n{instruction}\n\n"),
    Template(0.05, "Can you help with this?\n\n{instruction}\n"),
    Template(0.05, "Plase answer the following request: {instruction}\nAnswer:"),
    Template(0.05, "Tell me how would you respond to the following request.\n{instruction}\n"),
    Template(
        0.1,
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{instruction}\n\n### Response:",
    ),
)


def encode_instruction(
    instruction: str, answer: str, *, context: str | None = None, rng: random.Random
) -> tuple[str, str]:
    r"""The prompt and completion of one row, under a template drawn from `rng` (one draw).

    All three texts are stripped first; a missing or blank `context` takes the table without input.

    >>> encode_instruction("Add.", " 3 ", context="1 2", rng=random.Random(42))
    ('Task: Add.\nInput: 1 2\nOutput:', '3')
    >>> encode_instruction("Say hi.", "hi", rng=random.Random(1))
    ('Say hi.\n\n', 'hi')
    """
    instruction, answer = instruction.strip(), answer.strip()
    context = context.strip() if context else ""
    table = WITH_INPUT if context else WITHOUT_INPUT
    weights = [template.weight for template in table]
    template = rng.choices(table, weights=weights)[0]
    prompt = template.prompt.format(instruction=instruction, input=context)
    return prompt, template.answer_prefix + answer


def encode_few_shot(
    instruction: str, answer: str, exemplars: Sequence[tuple[str, str]], *, question: str
) -> tuple[str, str]:
    r"""The prompt and completion of one row that shows inputs and outputs before its own.

    All parts are stripped first.

    >>> encode_few_shot("Add.", " 3", [("1 1", "2 ")], question="1 2")
    ('Add.\n\nInput:\n1 1\nOutput:\n2\n\nInput:\n1 2\nOutput:\n', '3')
    """
    shots = "".join(f"Input:\n{x.strip()}\nOutput:\n{y.strip()}\n\n" for x, y in exemplars)
    prompt = f"{instruction.strip()}\n\n{shots}Input:\n{question.strip()}\nOutput:\n"
    return prompt, answer.strip()


def single_turn(dataset: str, index: int | str, *, prompt: str, completion: str) -> dict:
    """The unified record of one question and its answer."""
    return {
        "dataset": dataset,
        "id": f"{dataset}_{index}",
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ],
    }
