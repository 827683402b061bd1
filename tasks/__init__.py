"""The datasets, one file each. Importing this package imports every file in it, which registers
the datasets and the mixtures: a new one needs no other line anywhere.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tulu_jax.chat import load_tokenizer
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, get_spec
from tulu_jax.errors import DataError

__all__ = ["read_conversations"]

for _module in pkgutil.iter_modules(__path__, prefix="tasks."):
    importlib.import_module(_module.name)


def read_conversations(
    name: str,
    raw_dir: str | Path | None = None,
    *,
    tokenizer: Any = None,
    split_name: str = "train",
    faults: Faults | None = None,
    **options: Any,
) -> Iterator[Conversation]:
    """The dataset's conversations in file order, from the folder of its raw files.

    Args:
        name: a dataset, with or without the prefix `tulu_`.
        raw_dir: the folder that holds the dataset's files; not needed for an embedded dataset.
        tokenizer: for datasets that split by token counts: a loaded one, or its folder.
        split_name: `train`, or another split that the dataset has.
        faults: takes the bad records; without it the first one is raised.
        options: the dataset's own options.

    Raises:
      DataError: an unknown dataset, split or option; a fault of a whole file; and, without
        `faults`, one of a record.
    """
    spec = get_spec(name)
    spec = dataclasses.replace(spec, options=spec.resolve_options(options))
    if raw_dir is None and not spec.embedded:
        raise DataError(f"dataset {spec.name} is read from files", do="name their folder (raw_dir)")
    folder = None if raw_dir is None else Path(raw_dir)
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(tokenizer)
    return spec.conversations(folder, split_name, tokenizer=tokenizer, faults=faults)
