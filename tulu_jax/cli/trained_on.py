"""What a model was trained on, as its run folder or its export says."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from tulu_jax.files import json_or_none
from tulu_jax.places import Place

_MIXTURE = re.compile(r"^DataConfig\.mixture = (.*(?:\n[ \t]+.*)*)", re.MULTILINE)


def dataset_of_run(meta: Mapping[str, Any]) -> str | None:
    r"""The mixture or dataset of a run, which its checkpoints keep among the settings.

    >>> dataset_of_run({"settings": "TrainConfig.seed = 1\nDataConfig.mixture = 'tulu_dolly'\n"})
    'tulu_dolly'
    """
    found = _MIXTURE.search(str(meta.get("settings", "")))
    if found is None:
        return None
    try:  # gin writes a long value on the next line, after a backslash
        said = ast.literal_eval(found[1].replace("\\\n", " ").strip())
    except (ValueError, SyntaxError):
        return None
    return said if isinstance(said, str) and said else None


def dataset_of_folder(folder: Place) -> str | None:
    """The mixture or dataset that an exported folder names; None where it does not say."""
    from tulu_jax.checkpoint.hf.save import TRAINING

    fields = json_or_none(folder / TRAINING)
    said = fields.get("dataset") if isinstance(fields, dict) else None
    return said if isinstance(said, str) and said else None
