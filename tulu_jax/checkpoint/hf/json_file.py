"""JSON objects of model folders, read once and checked: the bytes first, then the text."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from tulu_jax.errors import CheckpointError
from tulu_jax.files import RepeatedField, each_once, kind_of


def read_json(
    path: Path,
    *,
    expected: str = "a folder in Hugging Face format",
    do: str = "give the folder that holds config.json and *.safetensors",
) -> dict[str, Any]:
    """The JSON object in a file; a byte order mark before it is skipped.

    Args:
      path: the file.
      expected: what its folder should be, for the message where the file is missing.
      do: what to do then.

    Raises:
      CheckpointError: no such file, not UTF-8, not JSON, no object, or a field twice with two
        values.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{path.name} is missing", at=path.parent, expected=expected, do=do
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{path.name} cannot be read", got=error.strerror or error, at=path
        ) from error
    return _object(data, path)


def _object(data: bytes, path: Path) -> dict[str, Any]:
    kind = kind_of(data)
    if kind is not None:
        raise CheckpointError(
            f"{path.name} is not JSON",
            got=kind,
            at=path,
            expected="a JSON object in UTF-8",
            do="write it anew in UTF-8" if "UTF" in kind else "put the file itself in its place",
        )
    try:
        value = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=partial(each_once, same=True)
        )
    except RepeatedField as error:
        raise CheckpointError(
            f"{error} is there twice with two values", at=path, expected="each field once",
            do="remove the one that is not meant",
        ) from error  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is unreadable",
            got=error,
            at=path,
            expected="a JSON object in UTF-8",
            do="mend the file, or take it anew from where it came",
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path.name} is malformed", got=type(value).__name__, at=path, expected="a JSON object"
        )
    return value
