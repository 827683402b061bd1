"""WizardLM: instructions that a model made harder step by step, answered by ChatGPT.

Source: paper-era open-instruct, `open_instruct/reformat_datasets.py@94055552c`,
`convert_wizardlm_data`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.instructions import sample_rows
from tasks.name_filter import without_names
from tasks.raw_files import as_object, list_field, read_json_list, text_field
from tasks.record_ids import DistinctIds
from tasks.templates import SEED
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register
from tulu_jax.errors import DataError

FILE = "WizardLM_evol_instruct_V2_143k.json"
ROLES = {"human": "user", "gpt": "assistant"}


def read(
    raw_dir: Path,
    *,
    num_examples: int | None = None,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """All rows in file order, or `num_examples` in the order in which they are drawn.

    Ids are `wizardlm_<idx field>`. In every row human and gpt must take turns.
    """
    rows = read_json_list(Path(raw_dir) / FILE, faults)
    rows = sample_rows(rows, num_examples, rng=random.Random(SEED))
    distinct = DistinctIds()

    def convert(_: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
        messages = _messages(list_field(row, "conversations", at=at), at)
        name = row.get("idx")
        if not isinstance(name, int):
            name = text_field(row, "idx", at=at)
        yield {"dataset": "wizardlm", "id": distinct(f"wizardlm_{name}"), "messages": messages}

    return without_names(convert_rows(rows, convert, faults), faults, wanted=filter_names)


def _messages(turns: list[Any], at: str) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = []
    for number, value in enumerate(turns):
        turn = as_object(value, "turn", at=at)
        sender = text_field(turn, "from", at=at)
        expected = ("human", "gpt")[number % 2]
        if sender != expected:
            raise DataError(
                "turns are out of order",
                got=ascii(sender)[:60],
                at=f"{at}, turn {number}",
                expected=expected,
            )
        messages.append({"role": ROLES[sender], "content": text_field(turn, "value", at=at)})
    if len(messages) % 2:
        raise DataError("last question has no answer", got=f"{len(messages)} turns", at=at)
    return messages


SPEC = register(
    DatasetSpec(
        name="wizardlm",
        version="1.0.0",
        description="Instructions evolved by a model to be harder, with answers of ChatGPT.",
        citation="""@article{xu2023wizardlm,
  title = {WizardLM: Empowering Large Language Models to Follow Complex Instructions},
  author = {Can Xu and Qingfeng Sun and Kai Zheng and Xiubo Geng and Pu Zhao and Jiazhan Feng and
            Chongyang Tao and Daxin Jiang},
  journal = {arXiv preprint arXiv:2304.12244},
  year = {2023},
}""",
        licence="MIT",
        homepage="https://huggingface.co/datasets/WizardLM/WizardLM_evol_instruct_V2_196k",
        sources=(
            Source(
                "https://huggingface.co/datasets/WizardLM/WizardLM_evol_instruct_V2_196k"
                f"/resolve/main/{FILE}",
                FILE,
                mirrors=(
                    "https://huggingface.co/datasets/WizardLMTeam/WizardLM_evol_instruct_V2_196k"
                    f"/resolve/main/{FILE}",
                ),
            ),
        ),
        expected_examples={"train": 143_000},
        options={"num_examples": None, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    replace(
        SPEC,
        task="tulu_v2_wizardlm",
        expected_examples={"train": 30_000},
        options={"num_examples": 30_000, "filter_names": True},
    )
)
