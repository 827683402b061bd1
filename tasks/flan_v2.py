"""FLAN v2: 100,000 rows sampled from the five submixes of the FLAN 2022 collection.

The file read here was sampled beforehand; `tasks.flan_resampling` makes such a file anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.inputs_targets import read_inputs_targets
from tasks.name_filter import without_names
from tasks.raw_files import read_jsonl
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register

FILE = "flan_v2_resampled_100k.jsonl"
TULU_V2_FILE = "flan_v2_resampled_50k.jsonl"
STORE = "https://huggingface.co/datasets/hamishivi/tulu_mix_store/resolve/main"
"""Where the authors put the files when their first addresses stopped working."""


def read(
    raw_dir: Path,
    *,
    file: str = FILE,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """All rows in file order."""
    rows = read_jsonl(Path(raw_dir) / file, faults)
    conversations = read_inputs_targets(rows, "flan_v2", faults=faults)
    return without_names(conversations, faults, wanted=filter_names)


SPEC = register(
    DatasetSpec(
        name="flan_v2",
        version="1.0.0",
        description="Prompts and answers of many earlier datasets, under FLAN's templates.",
        citation="""@article{longpre2023flan,
  title = {The Flan Collection: Designing Data and Methods for Effective Instruction Tuning},
  author = {Shayne Longpre and Le Hou and Tu Vu and Albert Webson and Hyung Won Chung and Yi Tay
            and Denny Zhou and Quoc V. Le and Barret Zoph and Jason Wei and Adam Roberts},
  journal = {arXiv preprint arXiv:2301.13688},
  year = {2023},
}""",
        licence="Apache-2.0",
        homepage="https://github.com/google-research/FLAN/tree/main/flan/v2",
        sources=(Source(f"{STORE}/{FILE}", FILE),),
        expected_examples={"train": 100_000},
        options={"file": FILE, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    dataclasses.replace(
        SPEC,
        task="tulu_v2_flan_v2",
        sources=(Source(f"{STORE}/{TULU_V2_FILE}", TULU_V2_FILE),),
        expected_examples={"train": 50_000},
        options={"file": TULU_V2_FILE, "filter_names": True},
    )
)
