"""GPT4-Alpaca: Alpaca's 52,002 instructions, answered by GPT-4."""

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

FILE = "alpaca_gpt4_data.json"


def read(
    raw_dir: Path,
    *,
    num_examples: int | None = None,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """The English rows, in file order or, with `num_examples`, as sampled before templating."""
    rng = random.Random(SEED)
    rows = sample_rows(read_json_list(Path(raw_dir) / FILE, faults), num_examples, rng=rng)
    conversations = read_instructions(rows, "gpt4_alpaca", rng=rng, faults=faults)
    return without_names(conversations, faults, wanted=filter_names)


SPEC = register(
    DatasetSpec(
        name="gpt4_alpaca",
        version="1.0.0",
        description="The instructions of Stanford Alpaca with answers by GPT-4.",
        citation="""@article{peng2023instruction,
  title = {Instruction Tuning with GPT-4},
  author = {Baolin Peng and Chunyuan Li and Pengcheng He and Michel Galley and Jianfeng Gao},
  journal = {arXiv preprint arXiv:2304.03277},
  year = {2023},
}""",
        licence="CC BY-NC 4.0",
        homepage="https://github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM",
        sources=(
            Source(
                "https://raw.githubusercontent.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM"
                f"/main/data/{FILE}",
                FILE,
            ),
        ),
        expected_examples={"train": 52_002},
        options={"num_examples": None, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    dataclasses.replace(
        SPEC,
        task="tulu_v2_gpt4_alpaca",
        expected_examples={"train": 20_000},
        options={"num_examples": 20_000, "filter_names": True},
    )
)
