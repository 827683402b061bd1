"""CoT: 100,000 questions with reasoning before the answer, from FLAN's chain-of-thought submix."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.inputs_targets import read_inputs_targets
from tasks.name_filter import without_names
from tasks.raw_files import Record, sample_jsonl
from tasks.templates import SEED
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register

ZERO_SHOT, FEW_SHOT = "cot_zsopt.jsonl", "cot_fsopt.jsonl"
STORE = "https://huggingface.co/datasets/hamishivi/tulu_mix_store/resolve/main"
"""Where the authors put the files when their first addresses stopped working."""


def read(
    raw_dir: Path,
    *,
    num_zero_shot: int = 50_000,
    num_few_shot: int = 50_000,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """Rows sampled from either file (all, in file order, of a smaller one), zero-shot first.

    Differs from the reference for `num_few_shot=0`, where that leaves out the zero-shot rows too.
    """
    rng = random.Random(SEED)

    def rows() -> Iterator[Record]:
        for name, count in ((ZERO_SHOT, num_zero_shot), (FEW_SHOT, num_few_shot)):
            yield from sample_jsonl(Path(raw_dir) / name, count, rng=rng, faults=faults)

    conversations = read_inputs_targets(rows(), "cot", faults=faults)
    return without_names(conversations, faults, wanted=filter_names)


SPEC = register(
    DatasetSpec(
        name="cot",
        version="1.0.0",
        description="Questions of nine datasets, the reasoning written out, with or without shots.",
        citation="""@article{wei2022chain,
  title = {Chain of Thought Prompting Elicits Reasoning in Large Language Models},
  author = {Jason Wei and Xuezhi Wang and Dale Schuurmans and Maarten Bosma and Brian Ichter and
            Fei Xia and Ed Chi and Quoc Le and Denny Zhou},
  journal = {arXiv preprint arXiv:2201.11903},
  year = {2022},
}""",
        licence="Apache-2.0",
        homepage="https://github.com/google-research/FLAN/tree/main/flan/v2",
        sources=tuple(Source(f"{STORE}/{name}", name) for name in (ZERO_SHOT, FEW_SHOT)),
        expected_examples={"train": 100_000},
        options={"num_zero_shot": 50_000, "num_few_shot": 50_000, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    dataclasses.replace(
        SPEC,
        task="tulu_v2_cot",
        expected_examples={"train": 50_000},
        options={"num_zero_shot": 25_000, "num_few_shot": 25_000, "filter_names": True},
    )
)
