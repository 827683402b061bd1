"""Science: 7,544 instructions about scientific papers, from several datasets (Tülu 2)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.name_filter import without_names
from tasks.raw_files import sample_jsonl, text_field
from tasks.templates import SEED, single_turn
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register

FILE = "science_train.jsonl"


def read(
    raw_dir: Path,
    *,
    num_examples: int | None = None,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """Input and output as they are; each row says which dataset it is of."""
    rng = random.Random(SEED)
    rows = sample_jsonl(Path(raw_dir) / FILE, num_examples, rng=rng, faults=faults)
    return without_names(convert_rows(rows, _convert, faults), faults, wanted=filter_names)


def _convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
    prompt, completion = (text_field(row, name, at=at) for name in ("input", "output"))
    conversation = single_turn("science", index, prompt=prompt, completion=completion)
    yield {**conversation, "dataset": f"science.{text_field(row, 'dataset', at=at)}"}


SPEC = register(
    DatasetSpec(
        name="science",
        version="1.0.0",
        description="Questions, extraction and summaries on the scientific literature.",
        citation="""@misc{ivison2023camels,
  title = {Camels in a Changing Climate: Enhancing LM Adaptation with Tulu 2},
  author = {Hamish Ivison and Yizhong Wang and Valentina Pyatkin and Nathan Lambert and
            Matthew Peters and Pradeep Dasigi and Joel Jang and David Wadden and Noah A. Smith and
            Iz Beltagy and Hannaneh Hajishirzi},
  year = {2023},
  eprint = {2311.10702},
  archivePrefix = {arXiv},
}""",
        licence="that of each dataset within",
        homepage="https://huggingface.co/datasets/hamishivi/tulu_mix_store",
        sources=(
            Source(
                f"https://huggingface.co/datasets/hamishivi/tulu_mix_store/resolve/main/{FILE}",
                FILE,
            ),
        ),
        expected_examples={"train": 7_544},
        options={"num_examples": None, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    dataclasses.replace(
        SPEC, task="tulu_v2_science", options={"num_examples": None, "filter_names": True}
    )
)
