"""Weight diffs: a tuned model published as what it adds to its base.

The paper's models are released this way, because LLaMA's licence forbids passing on its weights.
A diff is a Hugging Face folder like any other whose every tensor is `tuned - base`, elementwise in
float32, so it is compatible with the reference both ways: its `recover` reads ours, `apply_diff`
reads its own. Embeddings that the tuned model has more of (`<pad>`) are subtracted from the mean
of the base's embeddings.

Floats do not always come back: base + (tuned - base) is tuned only if the subtraction was exact,
which it is for most weights, not for all. `make_diff` tries it on every number and writes the few
that do not return, as they are, to `tulu_diff.bin`. `tulu_diff.json` holds a checksum of every
tensor of the base and of the tuned model, so a wrong base or a damaged file is found out.

    base             1.0    0.1      0.3
    tuned            1.5    0.10001  1e-9
    diff (float32)   0.5    0.00001  -0.3
    base + diff      1.5    0.10001  0.0        <- the third is kept in tulu_diff.bin

Source: open-instruct `scripts/weight_diff.py@e44fcf588`, after stanford_alpaca `weight_diff.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tulu_jax.checkpoint.diff_parts import (
    EXTRAS_NAME,
    F32,
    FORMAT,
    RECORD_NAME,
    Pair,
    bad_extras,
    check_record,
    places_of_extras,
    read_record,
)
from tulu_jax.checkpoint.hf.safetensors_io import (
    MAX_SHARD_BYTES,
    plan_shards,
    write_index,
    write_shard,
)
from tulu_jax.checkpoint.hf.tensors import (
    DTYPES,
    cast,
    check_finite,
    numpy_dtype,
    read_tensor,
)
from tulu_jax.checkpoint.whole_folder import whole_folder
from tulu_jax.errors import CheckpointError
from tulu_jax.files import read_json, write_json
from tulu_jax.places import Place, local_folder

COPIED = (".json", ".jinja", ".model", ".txt")
"""Files of a model folder that are no weights: config, tokenizer, template."""

Progress = Callable[[str, int, int], None]
"""Called with (tensor name, tensors done, tensors in all)."""


@dataclass(frozen=True)
class DiffResult:
    """What was written."""

    folder: Path
    num_tensors: int
    num_weights: int
    num_kept: int
    """Numbers that addition does not give back and that are kept as they are."""
    total: float
    """Sum of all weights of the tuned model, which stanford_alpaca compares as a checksum."""
    checked: bool
    """Whether checksums of base and result were there to compare with."""


def make_diff(
    base: str | Place,
    tuned: str | Place,
    output: str | Path,
    *,
    on_progress: Progress | None = None,
) -> DiffResult:
    """Writes `tuned - base` as a folder; one tensor of each is in memory at a time.

    Args:
      base: Hugging Face folder with safetensors.
      tuned: likewise, of the same shapes but for added rows of the vocabulary.
      output: folder to make.
      on_progress: told of each tensor.

    Raises:
      CheckpointError: the models do not belong together, a file is damaged, or `output` is in use.
    """
    pair = Pair.open(_here(base), _here(tuned), "tuned model")
    with whole_folder(output) as partial, (partial.folder / EXTRAS_NAME).open("wb") as extras:
        folder = partial.folder
        writer = _DiffWriter(pair, extras)
        _write_tensors(folder, pair, F32, _reported(writer.tensors(), pair, on_progress))
        _copy_files(pair.folder, folder)
        record = {
            "format": FORMAT,
            "tensors": writer.rows,
            "left_out": sorted(pair.left_out),
            "made_of": "tuned - base in float32",
        }
        write_json(folder / RECORD_NAME, record, indent=1, durable=True)
    kept = sum(row["kept"] for row in writer.rows.values())
    return DiffResult(
        Path(output), len(pair.specs), writer.num_weights, kept, writer.total, checked=True
    )


def apply_diff(
    base: str | Place,
    diff: str | Place,
    output: str | Path,
    *,
    dtype: str | None = None,
    on_progress: Progress | None = None,
) -> DiffResult:
    """Writes `base + diff`: the tuned model, bit for bit, if the diff is one of `make_diff`.

    Args:
      base: Hugging Face folder; its dtype does not matter as long as it holds the same numbers.
      diff: a folder of `make_diff` or of the reference's `weight_diff.py make_diff`, which has no
        checksums and so cannot tell a wrong base.
      output: folder to make.
      dtype: of the result; None takes that of the tuned model, float32 for the reference's diffs.
      on_progress: told of each tensor.

    Raises:
      CheckpointError: another base, a damaged diff, or `output` is in use; nothing is left there.
    """
    folder = _here(diff)
    record = read_record(folder)
    pair = Pair.open(_here(base), folder, "diff")
    rows = check_record(record, pair)
    wanted = None if dtype is None else numpy_dtype(dtype)
    reader = _DiffReader(pair, rows, wanted)
    with whole_folder(output) as partial:
        folder = partial.folder
        tensors = _reported(reader.tensors(), pair, on_progress)
        _write_tensors(folder, pair, reader.dtype, tensors)
        _copy_files(pair.folder, folder)
        if wanted is not None or not rows:
            _set_dtype(folder / "config.json", reader.dtype)
    kept = sum(row["kept"] for row in rows.values())
    return DiffResult(
        Path(output), len(pair.specs), reader.num_weights, kept, reader.total, bool(rows)
    )


def _here(place: str | Place) -> Path:
    """The folder, or a copy of it: every number of it is read."""
    return local_folder(place, weights=True)


class _DiffWriter:
    """Makes the tensors of a diff in turn, and what is known of each."""

    def __init__(self, pair: Pair, extras: BinaryIO) -> None:
        self.pair = pair
        self.rows: dict[str, dict[str, Any]] = {}
        self.total = 0.0
        self.num_weights = 0
        self._extras = extras

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, tuned - base in float32) of every tensor."""
        for name, spec in self.pair.specs.items():
            base, tuned = self.pair.base_tensor(name), read_tensor(spec)
            check_finite(tuned, name, spec.file)
            with np.errstate(all="ignore"):
                diff = tuned.astype(F32) - base
            lost = _lost(base, diff, tuned)
            self._extras.write(lost.astype("<u8").tobytes())
            self._extras.write(np.ascontiguousarray(tuned.reshape(-1)[lost]).tobytes())
            self.rows[name] = {
                "dtype": spec.dtype,
                "base": _checksum(self.pair.own_rows(name, base)),
                "tuned": _checksum(tuned),
                "kept": len(lost),
            }
            self.total += float(np.sum(tuned, dtype=np.float64))
            self.num_weights += tuned.size
            yield name, diff


def _lost(base: np.ndarray, diff: np.ndarray, tuned: np.ndarray) -> np.ndarray:
    """Flat positions at which base + diff, rounded to tuned's dtype, is not tuned bit for bit."""
    again = _add(base, diff, tuned.dtype)
    width = np.dtype(f"u{tuned.dtype.itemsize}")
    return np.flatnonzero(again.reshape(-1).view(width) != tuned.reshape(-1).view(width))


def _add(base: np.ndarray, diff: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.ascontiguousarray((base + diff.astype(F32)).astype(dtype))


def _checksum(tensor: np.ndarray) -> str:
    data = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    return hashlib.sha256(data).hexdigest()  # pyright: ignore[reportArgumentType]


class _DiffReader:
    """Makes the tensors of the tuned model in turn and compares them with the record."""

    def __init__(self, pair: Pair, rows: dict[str, dict[str, Any]], dtype: np.dtype | None) -> None:
        self.pair, self.rows = pair, rows
        self.total = 0.0
        self.num_weights = 0
        self.dtype = dtype or self._tuned_dtype()
        self._places = places_of_extras(pair, rows)

    def _tuned_dtype(self) -> np.dtype:
        """That of all tensors of the tuned model."""
        found = {row["dtype"] for row in self.rows.values()} or {"F32"}
        if len(found) > 1:
            raise CheckpointError(
                "tensors have several dtypes",
                got=sorted(str(DTYPES[name]) for name in found),
                at=self.pair.folder,
                expected="one dtype for the whole model",
                do="give --dtype float32",
            )
        return DTYPES[found.pop()]

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, base + diff) of every tensor."""
        for name, spec in self.pair.specs.items():
            row = self.rows.get(name)
            base = self.pair.base_tensor(name)
            if row is not None:
                self._check_base(name, base, row)
            dtype = F32 if row is None else DTYPES[row["dtype"]]
            tuned = _add(base, read_tensor(spec), dtype)
            if row is not None:
                self._put_kept(name, tuned)
                self._check_tuned(name, tuned, row)
            check_finite(tuned, name, spec.file)
            self.total += float(np.sum(tuned, dtype=np.float64))
            self.num_weights += tuned.size
            yield name, cast(tuned, self.dtype, name)

    def _check_base(self, name: str, base: np.ndarray, row: dict[str, Any]) -> None:
        if _checksum(self.pair.own_rows(name, base)) != row["base"]:
            raise CheckpointError(
                "base is not the one the diff was made with",
                got=f"other numbers in {name}",
                at=self.pair.base[name].file,
                expected=f"sha256 {row['base'][:12]} of its numbers as float32",
                do="give the very weights the diff names (another release or rounding differs)",
            )

    def _check_tuned(self, name: str, tuned: np.ndarray, row: dict[str, Any]) -> None:
        if _checksum(tuned) != row["tuned"]:
            raise CheckpointError(
                "diff is damaged",
                got=f"base + diff is not the tuned {name}",
                at=self.pair.specs[name].file,
                expected=f"sha256 {row['tuned'][:12]}",
                do="copy or download the diff again",
            )

    def _put_kept(self, name: str, tuned: np.ndarray) -> None:
        """Writes the numbers that addition did not give back into `tuned`, in place."""
        start, count = self._places[name]
        if not count:
            return
        with (self.pair.folder / EXTRAS_NAME).open("rb") as file:
            file.seek(start)
            where = np.fromfile(file, "<u8", count)
            values = np.fromfile(file, tuned.dtype, count)
        if len(values) != count or where.max() >= tuned.size:
            raise bad_extras(self.pair.folder, f"no such positions in {name}")
        tuned.reshape(-1)[where] = values


def _write_tensors(
    folder: Path, pair: Pair, dtype: np.dtype, tensors: Iterator[tuple[str, np.ndarray]]
) -> None:
    """Writes one file or several with an index."""
    shapes = {name: spec.shape for name, spec in pair.specs.items()}
    shards = plan_shards(shapes, dtype, MAX_SHARD_BYTES)
    for shard in shards:
        part = itertools.islice(tensors, len(shard.tensors))
        write_shard(folder / shard.name, shard, dtype, part)
    write_index(folder, shards, dtype)


def _reported(
    tensors: Iterator[tuple[str, np.ndarray]], pair: Pair, report: Progress | None
) -> Iterator[tuple[str, np.ndarray]]:
    for done, (name, tensor) in enumerate(tensors, 1):
        yield name, tensor
        if report is not None:
            report(name, done, len(pair.specs))


def _copy_files(source: Path, target: Path) -> None:
    """Config, tokenizer and template; not weights, nor what describes how they are split."""
    for path in sorted(source.iterdir()):
        ours = path.name.endswith(".index.json") or path.name.startswith("tulu_diff.")
        if path.is_file() and path.suffix in COPIED and not ours:
            shutil.copyfile(path, target / path.name)


def _set_dtype(path: Path, dtype: np.dtype) -> None:
    fields = read_json(path, CheckpointError)
    for name in ("torch_dtype", "dtype"):
        if name in fields:
            fields[name] = str(dtype)
    write_json(path, fields, indent=1, durable=True)
