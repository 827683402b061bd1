"""Code-Alpaca: 20,022 programming instructions written by text-davinci-003."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.instructions import read_instructions, sample_rows
from tasks.name_filter import without_names
from tasks.raw_files import read_json_list
from tasks.templates import SEED
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register

FILE = "code_alpaca_20k.json"


def read(
    raw_dir: Path,
    *,
    num_examples: int | None = None,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """Rows in file order; the literal input `< noinput >` of some rows counts as an input."""
    rng = random.Random(SEED)
    rows = sample_rows(read_json_list(Path(raw_dir) / FILE, faults), num_examples, rng=rng)
    conversations = read_instructions(rows, "code_alpaca", rng=rng, faults=faults)
    return without_names(conversations, faults, wanted=filter_names)


SPEC = register(
    DatasetSpec(
        name="code_alpaca",
        version="1.0.0",
        description="Programming instructions generated with the self-instruct method.",
        citation="""@misc{codealpaca,
  author = {Sahil Chaudhary},
  title = {Code Alpaca: An Instruction-following LLaMA model for code generation},
  year = {2023},
  url = {https://github.com/sahil280114/codealpaca},
}""",
        licence="CC BY-NC 4.0",
        homepage="https://github.com/sahil280114/codealpaca",
        sources=(
            Source(
                f"https://raw.githubusercontent.com/sahil280114/codealpaca/master/data/{FILE}",
                FILE,
            ),
        ),
        expected_examples={"train": 20_022},
        options={"num_examples": None, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    dataclasses.replace(
        SPEC, task="tulu_v2_code_alpaca", options={"num_examples": None, "filter_names": True}
    )
)
