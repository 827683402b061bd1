"""Config and weights -> Hugging Face folder, streamed tensor by tensor.

Everything is written to `NAME.partial` beside the target and renamed when it is whole, so a killed
or failed export is never mistaken for a good one; the next export of the same checkpoint keeps its
finished files. In memory are a few tensors: what threads read ahead and what is being written.

Nothing waits for the disk. What a killed process had written is in the page cache and stays; after
a power cut `checksums.json` tells what is not there.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu_jax.checkpoint.checksums import CHECKSUMS_NAME, file_checksum, write_checksums
from tulu_jax.checkpoint.hf.config import to_hf
from tulu_jax.checkpoint.hf.generation import GENERATION_CONFIG, generation_config
from tulu_jax.checkpoint.hf.names import expected_tensors, tensors_of, weights_of
from tulu_jax.checkpoint.hf.safetensors_io import (
    MAX_SHARD_BYTES,
    Shard,
    num_bytes_of,
    plan_shards,
    write_index,
    write_shard,
)
from tulu_jax.checkpoint.hf.tensors import DTYPE_NAMES, DTYPES, copy_cast, numpy_dtype
from tulu_jax.checkpoint.hf.weights import Tensor
from tulu_jax.checkpoint.lazy import made_ahead
from tulu_jax.checkpoint.reader import ParamPath, ParamsReader, TreeReader
from tulu_jax.checkpoint.whole_folder import MARKER, PartialFolder, check_target, whole_folder
from tulu_jax.errors import CheckpointError
from tulu_jax.files import json_or_none, write_json
from tulu_jax.models import ModelConfig
from tulu_jax.places import Address, Place, as_place

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer

__all__ = ["MARKER", "MAX_SHARD_BYTES", "Saved", "save"]


TRAINING = "training.json"
"""What the model was trained on, where that is known: `dataset` and `step`."""

Made = tuple[str, np.ndarray]
"""A tensor's name and values."""


@dataclass(frozen=True)
class Saved:
    """What `save` wrote."""

    folder: Place
    checksums: dict[str, str] = field(default_factory=dict)
    """Checksum of every file but checksums.json, by name."""
    num_bytes: int = 0
    kept: tuple[str, ...] = ()
    """Files that an export which was killed had finished."""
    was_there: bool = False
    """Whether the folder, in a bucket, was whole before, and nothing was written."""


def save(
    path: str | Place,
    config: ModelConfig,
    params: Mapping[str, Any] | ParamsReader,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str | None = None,
    max_shard_bytes: float = MAX_SHARD_BYTES,
    overwrite: bool = False,
    generation: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Saved:
    """Writes a folder that transformers, vLLM and llama.cpp load.

    Args:
      path: folder to make; its parent is made too.
      config: the model.
      params: its weights, as a nested dict of arrays or a reader that gives parts of them.
      tokenizer: its files are written too when given.
      dtype: float32, bfloat16 or float16; None keeps the embedding's.
      max_shard_bytes: tensor bytes in one file; above it the weights are split and indexed.
      overwrite: replace a model folder that is already there.
      generation: fields of the `generation_config.json` it was made from, which are kept.
      training: fields of `training.json`, what it was trained on; without them there is none.
      on_progress: called with (tensor name, bytes up to its end, bytes in all).

    Raises:
      CheckpointError: the folder is in use, cannot be written or is too small, the weights do not
        fit the config, or the tokenizer knows ids that the model does not.
    """
    target = as_place(path).absolute()
    reader: ParamsReader = TreeReader(params) if isinstance(params, Mapping) else params
    if not isinstance(target, Address):
        check_target(target, overwrite)
    _check_params(config, reader)
    tokenizer = tokenizer and tokenizer.fitting(config.vocab_size)
    _check_tokenizer(config, tokenizer)
    stored = _stored_dtype(dtype, reader)
    shards = plan_shards(expected_tensors(config), stored, int(max_shard_bytes))
    job = _Job(config, reader, stored, shards, generation, training)
    if isinstance(target, Address) and not overwrite:
        there = _whole_already(target, job, tokenizer, on_progress)
        if there is not None:
            return Saved(target, there, job.num_bytes, was_there=True)
    source = _source(config, reader, stored, shards)
    with whole_folder(target, job=source, overwrite=overwrite) as progress:
        saved = _fill(progress, job, tokenizer, on_progress)
    return Saved(target, saved.checksums, saved.num_bytes, saved.kept)


@dataclass(frozen=True)
class _Job:
    config: ModelConfig
    reader: ParamsReader
    dtype: np.dtype
    shards: list[Shard]
    generation: Mapping[str, Any] | None
    training: Mapping[str, Any] | None

    @property
    def num_bytes(self) -> int:
        return self.config.num_params * self.dtype.itemsize


def _source(
    config: ModelConfig, reader: ParamsReader, dtype: np.dtype, shards: list[Shard]
) -> str | None:
    """What must be the same for files of a killed export to be kept; None: never keep any."""
    plan = [(shard.name, list(shard.tensors.items())) for shard in shards]
    return reader.identity and f"{reader.identity} {config} {dtype} {plan}"


def _check_params(config: ModelConfig, reader: ParamsReader) -> None:
    have, need = set(reader.paths()), {row.path: row.shape(config) for row in weights_of(config)}
    if have != set(need):
        lost = sorted("/".join(path) for path in set(need) - have)
        more = sorted("/".join(path) for path in have - set(need))
        raise CheckpointError(
            "weights do not fit the model's config",
            got=f"missing {lost}, unexpected {more}",
            expected=f"the weights of tie_embeddings={config.tie_embeddings}",
        )
    for path, shape in need.items():
        if reader.shape(path) != shape:
            raise CheckpointError(
                "weight does not fit the model's config",
                got=reader.shape(path),
                at="/".join(path),
                expected=shape,
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
    stored = reader.dtype(("embedding",))
    return stored if stored in DTYPES.values() else np.dtype(np.float32)


def _fill(
    progress: PartialFolder,
    job: _Job,
    tokenizer: Tokenizer | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> Saved:
    folder = progress.folder
    needed = job.num_bytes - progress.num_bytes()
    here = not isinstance(progress.place_of(""), Address)
    if here and (free := shutil.disk_usage(folder).free) < needed:
        raise CheckpointError(
            "output folder is too small",
            got=f"{free:,} bytes free",
            at=folder.parent,
            expected=f"{needed:,}",
            do="free space or choose another folder"
            + (", or use --dtype bfloat16" if job.dtype.itemsize > 2 else ""),
        )
    checksums = _write_small_files(folder, job, tokenizer)
    kept = tuple(sorted(progress.done))
    checksums |= _write_weights(progress, job, on_progress)
    write_checksums(folder, checksums)
    return Saved(folder, checksums, job.num_bytes, kept)


def _write_small_files(folder: Path, job: _Job, tokenizer: Tokenizer | None) -> dict[str, str]:
    """Writes all but weights and checksums.json; the checksums."""
    if tokenizer is not None:
        from tulu_jax.chat import save_tokenizer_files

        save_tokenizer_files(tokenizer, folder)
    name = next(name for name, key in DTYPE_NAMES.items() if DTYPES[key] == job.dtype)
    write_json(folder / "config.json", to_hf(job.config, name))
    stops = () if tokenizer is None else tokenizer.stop_ids
    write_json(folder / GENERATION_CONFIG, generation_config(job.config, job.generation, stops))
    if job.training is not None:
        write_json(folder / TRAINING, dict(job.training))
    write_index(folder, job.shards, job.dtype)
    of_weights = {MARKER, *(shard.name for shard in job.shards)}
    return {
        path.name: file_checksum(path)
        for path in sorted(folder.iterdir())
        if path.name not in of_weights
    }


class _Nowhere(PartialFolder):
    """A folder whose weights are made, and not kept."""

    def place_of(self, name: str) -> Place:
        """Where nothing stays."""
        return Path(os.devnull)


def _whole_already(
    target: Address,
    job: _Job,
    tokenizer: Tokenizer | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> dict[str, str] | None:
    """Checksums of a folder that is whole and the very one that would be written; else None.

    It is what an export leaves that was killed after its last request. The run is read for it only
    where names, sizes and all small files are the same.
    """
    there = target.files()
    if MARKER in there or CHECKSUMS_NAME not in there:
        return None
    listed = (json_or_none(target / CHECKSUMS_NAME) or {}).get("files")
    with tempfile.TemporaryDirectory(prefix="tulu-") as local:
        folder = Path(local)
        checksums = _write_small_files(folder, job, tokenizer)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        sizes |= {shard.name: num_bytes_of(shard, job.dtype) for shard in job.shards}
        sizes[CHECKSUMS_NAME] = there[CHECKSUMS_NAME][0]
        alike = isinstance(listed, dict) and checksums.items() <= listed.items()
        if not alike or sizes != {name: size for name, (size, _) in there.items()}:
            return None
        checksums |= _write_weights(_Nowhere(folder, None, {}), job, on_progress)
    return checksums if checksums == listed else None


def _write_weights(
    progress: PartialFolder, job: _Job, on_progress: Callable[[str, int, int], None] | None
) -> dict[str, str]:
    """Writes every file that is not there yet; returns the checksums of all."""
    wanted = {name for shard in job.shards if shard.name not in progress.done
              for name in shard.tensors}  # fmt: skip
    made = made_ahead(make for name, make in _makers(job) if name in wanted)
    done = 0
    for shard in job.shards:
        end = done + shard.num_weights * job.dtype.itemsize
        if shard.name not in progress.done:
            part: Iterable[Made] = itertools.islice(made, len(shard.tensors))
            if on_progress is not None:
                part = _reported(part, done, job.num_bytes, on_progress)
            checksum = write_shard(progress.place_of(shard.name), shard, job.dtype, part)
            progress.finish(shard.name, checksum)
        done = end
    return dict(progress.done)


def _makers(job: _Job) -> Iterator[tuple[str, Callable[[], Made]]]:
    """What makes every tensor, in the table's order; each reads one layer of its weights."""
    for tensor in tensors_of(job.config):
        source = _Layers(job.reader, tensor)
        for layer, name in enumerate(tensor.hf_names(job.config)):
            yield name, lambda s=source, i=layer, n=name: (n, _make(job, s, i, n))


def _make(job: _Job, source: _Layers, layer: int, name: str) -> np.ndarray:
    """One tensor: where it is one weight read at once a view of that, turned when it is written."""
    tensor = source.tensor
    parts = ((w, *part) for w in tensor.weights for part in source.read(w.path, layer))
    begun = list(itertools.islice(parts, 2))
    if len(begun) == 1:
        return tensor.to_hf([begun[0][2]], job.config)
    result = np.empty(tensor.hf_shape(job.config), job.dtype)
    for weight, rows, part in itertools.chain(begun, parts):
        place = weight.from_hf(result, job.reader.shape(weight.path)[tensor.per_layer :])
        if not np.may_share_memory(place, result):
            raise ValueError(f"{name} is not filled in place")
        copy_cast(place[rows], part, name)
    return result


class _Layers:
    """Reads one layer of a tensor's weights; where a file holds several together, keeps them."""

    def __init__(self, reader: ParamsReader, tensor: Tensor) -> None:
        self.tensor = tensor
        self._reader = reader
        self._lock = threading.Lock()
        self._blocks: dict[ParamPath, tuple[int, np.ndarray]] = {}

    def read(self, path: ParamPath, layer: int) -> Iterator[tuple[slice, np.ndarray]]:
        """The parts of one layer of the weight; of all of it where it has no layers."""
        if not self.tensor.per_layer:
            return self._reader.pieces(path)
        return iter([(slice(None), self._read_layer(path, layer))])

    def _read_layer(self, path: ParamPath, layer: int) -> np.ndarray:
        rows = self._reader.rows_at_once(path)
        if rows == 1:
            return self._reader.read_part(path, layer, layer + 1)[0]
        start = layer // rows * rows
        with self._lock:
            if self._blocks.get(path, (-1,))[0] != start:
                stop = min(start + rows, self._reader.shape(path)[0])
                self._blocks[path] = (start, self._reader.read_part(path, start, stop))
            return self._blocks[path][1][layer - start]


def _reported(
    tensors: Iterable[Made], done: int, total: int, report: Callable[[str, int, int], None]
) -> Iterator[Made]:
    for name, tensor in tensors:
        done += tensor.nbytes
        report(name, done, total)
        yield name, tensor
