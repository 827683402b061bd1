"""Dolly: 15,011 instructions and answers written by the employees of Databricks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.instructions import read_instructions
from tasks.raw_files import sample_jsonl
from tasks.templates import SEED
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register

FILE = "databricks-dolly-15k.jsonl"


def read(
    raw_dir: Path, *, num_examples: int | None = None, faults: Faults | None = None, **_: Any
) -> Iterator[Conversation]:
    """Rows in file order; `context` is the input, `category` is not used."""
    rng = random.Random(SEED)
    rows = sample_jsonl(Path(raw_dir) / FILE, num_examples, rng=rng, faults=faults)
    return read_instructions(
        rows, "dolly", rng=rng, faults=faults, context="context", answer="response"
    )


SPEC = register(
    DatasetSpec(
        name="dolly",
        version="1.0.0",
        description="Instructions and answers written by people, in eight categories.",
        citation="""@online{dolly,
  author = {Mike Conover and Matt Hayes and Ankit Mathur and Jianwei Xie and Jun Wan and Sam Shah
            and Ali Ghodsi and Patrick Wendell and Matei Zaharia and Reynold Xin},
  title = {Free Dolly: Introducing the World's First Truly Open Instruction-Tuned LLM},
  year = {2023},
}""",
        licence="CC BY-SA 3.0",
        homepage="https://huggingface.co/datasets/databricks/databricks-dolly-15k",
        sources=(
            Source(
                "https://huggingface.co/datasets/databricks/databricks-dolly-15k"
                f"/resolve/main/{FILE}",
                FILE,
            ),
        ),
        expected_examples={"train": 15_011},
        options={"num_examples": None},
        read=read,
    )
)
