"""LIMA: 1,030 questions with answers chosen and written with care."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.name_filter import without_names
from tasks.raw_files import as_text, list_field, sample_jsonl
from tasks.templates import SEED
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register

FILE = "train.jsonl"


def read(
    raw_dir: Path,
    *,
    num_examples: int | None = None,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """Each line's texts as user and assistant by turns; a last text without answer is dropped."""
    rng = random.Random(SEED)
    rows = sample_jsonl(Path(raw_dir) / FILE, num_examples, rng=rng, faults=faults)
    return without_names(convert_rows(rows, _convert, faults), faults, wanted=filter_names)


def _convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
    texts = [as_text(text, "turn", at=at) for text in list_field(row, "conversations", at=at)]
    texts = texts[: len(texts) // 2 * 2]
    messages = [
        {"role": ("user", "assistant")[turn % 2], "content": text}
        for turn, text in enumerate(texts)
    ]
    yield {"dataset": "lima", "id": f"lima_{index}", "messages": messages}


SPEC = register(
    DatasetSpec(
        name="lima",
        version="1.0.0",
        description="Questions from community sites and by the authors, with curated answers.",
        citation="""@article{zhou2023lima,
  title = {LIMA: Less Is More for Alignment},
  author = {Chunting Zhou and Pengfei Liu and Puxin Xu and Srini Iyer and Jiao Sun and Yuning Mao
            and Xuezhe Ma and Avia Efrat and Ping Yu and Lili Yu and Susan Zhang and Gargi Ghosh
            and Mike Lewis and Luke Zettlemoyer and Omer Levy},
  journal = {arXiv preprint arXiv:2305.11206},
  year = {2023},
}""",
        licence="CC BY-NC-SA, or stricter where a source is stricter",
        homepage="https://huggingface.co/datasets/GAIR/lima",
        sources=(
            Source(
                f"https://huggingface.co/datasets/GAIR/lima/resolve/main/{FILE}",
                FILE,
                token_env="HF_TOKEN",
                manual="ask for access on the dataset's page, then set HF_TOKEN",
            ),
        ),
        expected_examples={"train": 1_030},
        options={"num_examples": None, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    dataclasses.replace(
        SPEC, task="tulu_v2_lima", options={"num_examples": None, "filter_names": True}
    )
)
