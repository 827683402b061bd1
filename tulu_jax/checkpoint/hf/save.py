"""Config and weights -> Hugging Face folder, streamed tensor by tensor.

Everything is written to `NAME.partial` beside the target and renamed when it is whole, so a killed
or failed export is never mistaken for a good one. At any time one parameter of the source is in
memory, which for per-layer weights is the stacked [L, ...] array, and one tensor of the target.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu_jax.checkpoint.arrays import ParamsReader, TreeReader
from tulu_jax.checkpoint.hf.config import generation_config, to_hf
from tulu_jax.checkpoint.hf.load import DTYPE_NAMES, cast, num_weights, numpy_dtype
from tulu_jax.checkpoint.hf.names import EMBEDDING, expected_tensors, weights_of
from tulu_jax.checkpoint.hf.safetensors_io import (
    DTYPES,
    INDEX_NAME,
    plan_shards,
    write_shard,
)
from tulu_jax.errors import CheckpointError
from tulu_jax.models import ModelConfig

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer

MAX_SHARD_BYTES = 5_000_000_000
MARKER = "EXPORT_IS_NOT_COMPLETE"
"""File inside a folder that is still being written."""


@dataclass(frozen=True)
class Saved:
    """What `save` wrote."""

    folder: Path
    checksums: dict[str, str] = field(default_factory=dict)
    """SHA-256 in hex of every file, by name."""
    num_bytes: int = 0


def save(
    path: str | Path,
    config: ModelConfig,
    params: Mapping[str, Any] | ParamsReader,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str | None = None,
    max_shard_bytes: float = MAX_SHARD_BYTES,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Saved:
    """Writes a folder that transformers, vLLM and llama.cpp load.

    Args:
      path: folder to make; its parent is made too.
      config: the model.
      params: its weights, as a nested dict of arrays or a reader that gives one at a time.
      tokenizer: its files are written too when given.
      dtype: float32, bfloat16 or float16; None keeps the embedding's.
      max_shard_bytes: tensor bytes in one file; above it the weights are split and indexed.
      overwrite: replace a model folder that is already there.
      on_progress: called with (tensor name, bytes up to its end, bytes in all).

    Raises:
      CheckpointError: the folder is in use, cannot be written or is too small, the weights do not
        fit the config, or the tokenizer knows ids that the model does not.
    """
    target = Path(path).absolute()
    reader: ParamsReader = TreeReader(params) if isinstance(params, Mapping) else params
    _check_target(target, overwrite)
    _check_params(config, reader)
    tokenizer = tokenizer and tokenizer.fitting(config.vocab_size)
    _check_tokenizer(config, tokenizer)
    try:
        partial = _make_partial(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        stored = _stored_dtype(dtype, reader)
        saved = _fill(partial, config, reader, stored, tokenizer, max_shard_bytes, on_progress)
        _rename(partial, target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _unwritable(target, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Saved(target, saved.checksums, saved.num_bytes)


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    problem = None
    if not overwrite:
        problem, do = "output folder is not empty", "choose another, or add --overwrite"
    elif not (target / "config.json").is_file() or (target / "checkpoints").exists():
        problem, do = "output folder does not look like an exported model", "choose another"
    if problem:
        found = sorted(p.name for p in target.iterdir())[:5] if target.is_dir() else "a file"
        raise CheckpointError(problem, got=found, at=target, do=do)


def _check_params(config: ModelConfig, reader: ParamsReader) -> None:
    have, need = set(reader.paths()), {row.path for row in weights_of(config)}
    if have != need:
        lost = sorted("/".join(path) for path in need - have)
        more = sorted("/".join(path) for path in have - need)
        raise CheckpointError(
            "weights do not fit the model's config",
            got=f"missing {lost}, unexpected {more}",
            expected=f"the weights of tie_embeddings={config.tie_embeddings}",
        )


def _check_tokenizer(config: ModelConfig, tokenizer: Tokenizer | None) -> None:
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            "tokenizer has more tokens than the model",
            got=f"{tokenizer.vocab_size} tokens for {config.vocab_size} embeddings",
            at=tokenizer.path,
            expected="the tokenizer the model was trained with",
            do="give it with --tokenizer",
        )


def _stored_dtype(dtype: str | None, reader: ParamsReader) -> np.dtype:
    if dtype is not None:
        return numpy_dtype(dtype)
    stored = reader.read(EMBEDDING.path).dtype
    return stored if stored in DTYPES.values() else np.dtype(np.float32)


def _make_partial(target: Path) -> Path:
    """A fresh `NAME.partial`; what a killed export left there is removed."""
    partial = target.with_name(target.name + ".partial")
    if (partial / MARKER).is_file():
        shutil.rmtree(partial)
    elif partial.exists():
        raise CheckpointError(
            "working folder is taken", at=partial, do="move it away or choose another output"
        )
    partial.mkdir(parents=True)
    (partial / MARKER).touch()
    return partial


def _rename(partial: Path, target: Path) -> None:
    (partial / MARKER).unlink()
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(target.name + ".old")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old)


def _fill(
    folder: Path,
    config: ModelConfig,
    reader: ParamsReader,
    dtype: np.dtype,
    tokenizer: Tokenizer | None,
    max_shard_bytes: float,
    on_progress: Callable[[str, int, int], None] | None,
) -> Saved:
    num_bytes = num_weights(config) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise CheckpointError(
            "output folder is too small",
            got=f"{free:,} bytes free",
            at=folder.parent,
            expected=f"{num_bytes:,}",
            do="free space, choose another folder, or use --dtype bfloat16",
        )
    if tokenizer is not None:
        from tulu_jax.chat import save_tokenizer_files

        save_tokenizer_files(tokenizer, folder)
    tensors = _tensors(config, reader, dtype)
    if on_progress is not None:
        tensors = _reported(tensors, num_bytes, on_progress)
    checksums = _write_weights(folder, config, dtype, tensors, max_shard_bytes)
    name = next(name for name, key in DTYPE_NAMES.items() if DTYPES[key] == dtype)
    _write_json(folder / "config.json", to_hf(config, name))
    _write_json(folder / "generation_config.json", generation_config(config))
    for path in sorted(folder.iterdir()):
        if path.name not in checksums and path.name != MARKER:
            checksums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return Saved(folder, checksums, num_bytes)


def _write_weights(
    folder: Path,
    config: ModelConfig,
    dtype: np.dtype,
    tensors: Iterator[tuple[str, np.ndarray]],
    max_shard_bytes: float,
) -> dict[str, str]:
    shards = plan_shards(expected_tensors(config), dtype, int(max_shard_bytes))
    checksums = {}
    for shard in shards:
        part = itertools.islice(tensors, len(shard.tensors))
        checksums[shard.name] = write_shard(folder / shard.name, shard, dtype, part)
    if len(shards) > 1:
        total = num_weights(config) * dtype.itemsize
        weight_map = {name: shard.name for shard in shards for name in shard.tensors}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / INDEX_NAME, index)
    return checksums


def _tensors(
    config: ModelConfig, reader: ParamsReader, dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor in the table's order; one parameter of the reader is held at a time."""
    for row in weights_of(config):
        param = reader.read(row.path)
        names = row.hf_names(config)
        layers = param if row.per_layer else param[None]
        wanted = (len(names), int(np.prod(row.hf_shape(config))))
        if (len(layers), layers[0].size) != wanted:
            raise CheckpointError(
                "weight does not fit the model's config",
                got=param.shape,
                at="/".join(row.path),
                expected=f"{wanted[0]} x {wanted[1]} numbers",
            )
        for name, layer in zip(names, layers, strict=True):
            tensor = cast(row.to_hf(layer, config), dtype, name)
            yield name, np.array(tensor, order="C")  # a copy: a view would keep `param` alive
        del param, layers, layer, tensor


def _reported(
    tensors: Iterator[tuple[str, np.ndarray]], total: int, report: Callable[[str, int, int], None]
) -> Iterator[tuple[str, np.ndarray]]:
    done = 0
    for name, tensor in tensors:
        done += tensor.nbytes
        report(name, done, total)
        yield name, tensor


def _write_json(path: Path, value: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _unwritable(target: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        "output folder cannot be written",
        got=error.strerror or error,
        at=target,
        do="nothing is left under that name: free space or choose another folder",
    )
