"""What a weight diff and its base are made of, checked before any number is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.checkpoint.hf.files import find_tensors
from tulu_jax.checkpoint.hf.kinds import no_model
from tulu_jax.checkpoint.hf.names import HARMLESS
from tulu_jax.checkpoint.hf.tensors import DTYPES, TensorSpec, read_finite
from tulu_jax.errors import CheckpointError
from tulu_jax.files import read_json

RECORD_NAME = "tulu_diff.json"
EXTRAS_NAME = "tulu_diff.bin"
FORMAT = 1
F32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Pair:
    """The base, and the folder that has the same tensors: the tuned model or the diff."""

    folder: Path
    base: dict[str, TensorSpec]
    specs: dict[str, TensorSpec]
    left_out: frozenset[str]

    @staticmethod
    def open(base: Path, folder: Path, what: str) -> Pair:
        """Both folders, names and shapes checked."""
        for path in (base, folder):
            if not path.is_dir():
                raise no_model(path)
        base_specs, specs = find_tensors(base), find_tensors(folder)
        left_out = frozenset(name for name in specs if HARMLESS.search(name))
        for name in left_out:
            del specs[name]
        lost = sorted(n for n in base_specs if n not in specs and not HARMLESS.search(n))
        more = sorted(set(specs) - set(base_specs))
        if lost or more:
            raise CheckpointError(
                f"{what} and base have different tensors",
                got=f"only in the base {lost[:3]}, only in the {what} {more[:3]}",
                at=folder,
                expected=f"the {len(base_specs)} tensors of {base}",
                do="give the base the model was tuned from",
            )
        rows = {_vocabulary(base, base_specs), _vocabulary(folder, specs)}
        for name, spec in specs.items():
            _check_shapes(name, base_specs[name], spec, what, may_grow=len(rows) == 2)
        return Pair(folder, base_specs, specs, left_out)

    def base_tensor(self, name: str) -> np.ndarray:
        """The base's tensor in float32, grown to as many rows as the other side has."""
        tensor = read_finite(self.base[name], name)
        added = self.specs[name].shape[0] - len(tensor) if tensor.ndim else 0
        if not added:
            return tensor
        mean = tensor.mean(axis=0, dtype=np.float64).astype(F32)
        return np.concatenate([tensor, np.broadcast_to(mean, (added, *tensor.shape[1:]))])

    def own_rows(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """The rows of the base's tensor that were not added to it."""
        return tensor[: self.base[name].shape[0]] if tensor.ndim else tensor


def _vocabulary(folder: Path, specs: Mapping[str, TensorSpec]) -> int | None:
    """Rows of the embedding by config.json; None if no tensor has that many."""
    size = read_json(folder / "config.json", CheckpointError).get("vocab_size")
    return size if any(spec.shape[:1] == (size,) for spec in specs.values()) else None


def _check_shapes(
    name: str, base: TensorSpec, spec: TensorSpec, what: str, *, may_grow: bool
) -> None:
    grown = may_grow and len(spec.shape) == 2 and spec.shape[0] > base.shape[0]
    if spec.shape == base.shape or (grown and spec.shape[1:] == base.shape[1:]):
        return
    raise CheckpointError(
        f"{what} and base have different shapes",
        got=f"{name} {list(spec.shape)}",
        at=spec.file,
        expected=f"{list(base.shape)} as in the base, or more rows of the vocabulary",
        do="give the base the model was tuned from",
    )


def places_of_extras(pair: Pair, rows: Mapping[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Where in `tulu_diff.bin` each tensor's kept numbers start, and how many they are."""
    places, end = {}, 0
    for name in rows:
        count = rows[name]["kept"]
        places[name] = (end, count)
        end += count * (8 + DTYPES[rows[name]["dtype"]].itemsize)
    path = pair.folder / EXTRAS_NAME
    size = path.stat().st_size if path.is_file() else None
    if rows and size != end:
        raise bad_extras(pair.folder, f"{size} bytes where {RECORD_NAME} needs {end}")
    return places


def bad_extras(folder: Path, got: str) -> CheckpointError:
    """The error of a `tulu_diff.bin` that does not fit the record."""
    return CheckpointError(
        "diff is damaged", got=got, at=folder / EXTRAS_NAME, do="copy or download the diff again"
    )


def read_record(diff: Path) -> dict[str, Any]:
    """What `make_diff` noted; empty for the reference's diffs, which have no notes."""
    path = diff / RECORD_NAME
    if not path.is_file() and not (diff / EXTRAS_NAME).exists():
        return {}
    return read_json(path, CheckpointError)


def check_record(record: dict[str, Any], pair: Pair) -> dict[str, dict[str, Any]]:
    """The record's rows by tensor; empty if there is no record."""
    if not record:
        return {}
    rows = record.get("tensors")
    good = (
        record.get("format") == FORMAT
        and isinstance(rows, dict)
        and rows.keys() == pair.specs.keys()
        and all(_is_row(row) for row in rows.values())
    )
    if not good or not isinstance(rows, dict):
        raise CheckpointError(
            "diff's record is malformed",
            got=f"format {record.get('format')}",
            at=pair.folder / RECORD_NAME,
            expected=f"format {FORMAT} with dtype and checksums of each of its tensors",
            do="copy or download the diff again",
        )
    return rows


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.get("dtype") in DTYPES
        and isinstance(row.get("base"), str)
        and isinstance(row.get("tuned"), str)
        and type(row.get("kept")) is int
        and row["kept"] >= 0
    )
