"""A run that trained adapters, read as the whole model it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.checkpoint.fingerprint import Fingerprint
from tulu_jax.checkpoint.hf.kinds import ADAPTER_CONFIG
from tulu_jax.checkpoint.hf.load import HfFolder, open_folder
from tulu_jax.checkpoint.hf.tensors import cast, numpy_dtype
from tulu_jax.checkpoint.manager import is_run, refuse_adapters, saved_generation
from tulu_jax.checkpoint.peft import BASE_WEIGHTS, load_peft
from tulu_jax.checkpoint.peft_config import Note
from tulu_jax.checkpoint.reader import Index, ParamPath, ParamsReader
from tulu_jax.errors import CheckpointError, ConfigError
from tulu_jax.files import json_or_none, real_path, sha256
from tulu_jax.models import ModelConfig, config_to_dict
from tulu_jax.models.lora import LoraConfig, adapter_shapes, merge, rounded
from tulu_jax.places import Place, as_place, readable


def open_weights(
    run: str | Place, step: int | None = None, *, base: str | Place | None = None
) -> CheckpointReader | MergedReader:
    """The whole weights of a run's checkpoint; adapters are merged into their base as it is read.

    Args:
      run: run folder.
      step: of the checkpoint; None takes the newest.
      base: where an adapter's frozen weights lie now; None takes where they lay in training.

    Raises:
      CheckpointError: no complete checkpoint, or the base is not there or not the same.
    """
    reader = CheckpointReader(run, step)
    if reader.meta.get("lora") is None:
        if base is not None:
            raise ConfigError(
                "--base goes with adapters only", got=str(base), at=run, do="leave it out"
            )
        return reader
    return MergedReader(reader, base)


def saved_lora(meta: Mapping[str, Any]) -> LoraConfig:
    """The adapters' settings from a checkpoint's metadata.

    Raises:
      CheckpointError: there are none.
    """
    fields = meta.get("lora")
    if not isinstance(fields, dict):
        raise CheckpointError(
            "checkpoint holds no adapters",
            expected="a run trained with LORA = @LoraConfig()",
            do="leave out --merge: the run has whole weights",
        )
    own = {name: fields[name] for name in ("rank", "alpha", "dropout", "targets", "base_dtype")}
    return LoraConfig(**own)


class MergedReader(ParamsReader):
    """The weights base + adapters, float32; a few layers are in memory at a time.

    The base is compared with the fingerprints the run took of it before anything is merged.
    """

    def __init__(self, adapters: CheckpointReader, base: str | Place | None = None) -> None:
        """Opens and checks the base.

        Raises:
          CheckpointError: it is not there, or not the one the adapters were trained beside.
        """
        self.meta, self.step, self.path = adapters.meta, adapters.step, adapters.path
        self.config = adapters.config
        self.lora = saved_lora(adapters.meta)
        self._adapters = adapters
        folder = base or adapters.meta.get("base_path") or ""
        self.base_path = as_place(folder)
        self._base = _open_base(folder, self.config)
        self._dtype = numpy_dtype(self.lora.read_dtype)
        self._adapted = adapter_shapes(self.config, self.lora)
        wanted = self.meta["lora"].get("base_weights") or {}
        do = "give the base of the run with --base"
        _check_base(self._base, wanted, self.lora.read_dtype, folder, do)

    @property
    def identity(self) -> str:
        """SHA-256 in hex of what names this very checkpoint, merged."""
        return sha256(f"merged {self._adapters.identity}")

    def paths(self) -> list[ParamPath]:
        """Every weight of the model."""
        return self._base.paths()

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight."""
        return self._base.shape(path)

    def dtype(self, path: ParamPath) -> np.dtype:
        """float32 for all of them."""
        return np.dtype(np.float32)

    def read_slice(self, path: ParamPath, index: Index) -> np.ndarray:
        """A part of one weight, merged; of one with an adapter whole layers are read."""
        if path not in self._adapted:
            frozen = self._base.read_slice(path, index)
            return cast(frozen, self._dtype, "/".join(path)).astype(np.float32)
        layers, rest = index[:1], index[1:]
        frozen = cast(self._base.read_slice(path, layers), self._dtype, "/".join(path))
        a, b = (self._adapters.read_slice((*path, name), layers) for name in "ab")
        frozen = rounded(frozen, self.lora, self._adapted[path])
        return merge(frozen, a, b, scale=self.lora.scale)[(slice(None), *rest)]

    def rows_at_once(self, path: ParamPath) -> int:
        """Rows of the first axis that are read together, however few are asked for."""
        return self._base.rows_at_once(path)


def _check_base(
    base: ParamsReader, wanted: Mapping[str, str], dtype: str, at: str | Place, do: str
) -> None:
    """Refuses a base whose weights, rounded to `dtype`, are not those of the fingerprints."""
    for name, found in base_fingerprints(base, dtype):
        if found != wanted.get(name):
            raise CheckpointError(
                "base is not the one the adapters were trained beside",
                got=f"fingerprint {found} of {name}",
                at=at,
                expected=wanted.get(name),
                do=do,
            )


def base_fingerprints(base: ParamsReader, dtype: str) -> Iterator[tuple[str, str]]:
    """(path, fingerprint) of every weight of the base, rounded to `dtype`, a few rows at a time."""
    for path in base.paths():
        found = Fingerprint()
        for _, part in base.pieces(path):
            found.add(cast(part, numpy_dtype(dtype), "/".join(path)))
        yield "/".join(path), found.text


def import_peft(
    folder: str | Place, base: str | Place, run: str | Place, *, note: Note = lambda _: None
) -> Place:
    """Makes an adapter of PEFT's checkpoint 0 of a new run beside `base`; returns its folder.

    `note` is told what people should know of the base and the adapter.

    Raises:
      CheckpointError: it does not fit the base or was trained beside another, or the run folder
        holds checkpoints already.
    """
    reader = _open_base(base)
    for line in reader.notes:
        note(line)
    lora, adapters = load_peft(folder, reader.config, note=note)
    wanted = json_or_none(readable(folder) / BASE_WEIGHTS)
    if isinstance(wanted, dict) and wanted:
        dtype = str(next(iter(wanted.values()))).partition(":")[0]
        do = f"give its base with --base, or take {BASE_WEIGHTS} away to put it beside another"
        _check_base(reader, wanted, dtype, base, do)
    else:
        _say_base(folder, base, note)
    meta = {
        "model": config_to_dict(reader.config),
        "step": 0,
        "source": {"format": "peft", "folder": as_place(folder).name},
        "lora": {
            **dataclasses.asdict(lora),
            "targets": sorted(lora.weights),
            "base_weights": dict(base_fingerprints(reader, lora.read_dtype)),
        },
        "generation": saved_generation(base),
        "base_path": str(as_place(base).absolute()),
        "tokenizer_path": str(as_place(base).absolute() / ("tokenizer" if is_run(base) else "")),
    }
    return save_params(run, adapters, meta)


def _say_base(folder: str | Place, base: str | Place, note: Note) -> None:
    """Says that an adapter names another base than the one it is put beside.

    Nothing else tells: it fits beside the weights of any model of these shapes.
    """
    fields = json_or_none(readable(folder) / ADAPTER_CONFIG)
    named = fields.get("base_model_name_or_path") if isinstance(fields, dict) else None
    if not isinstance(named, str) or not (name := PurePath(named).name.lower()):
        return
    place = as_place(base)
    config = json_or_none(readable(base) / "config.json")
    other = config.get("_name_or_path") if isinstance(config, dict) else None
    paths = (str(place), str(real_path(place)) if isinstance(place, Path) else "", str(other))
    # huggingface_hub keeps org/name as models--org--name/snapshots/REVISION.
    if not any(part.lower().endswith(name) for path in paths for part in PurePath(path).parts):
        note(
            f"the adapter was trained beside {named}, as its config says, and --base is {base}: an "
            "adapter fits beside any weights of these shapes, so see that they are the same model's"
        )


def _open_base(
    folder: str | Place, config: ModelConfig | None = None
) -> CheckpointReader | HfFolder:
    """The base's reader; its config is compared with the model's if that is given."""
    if not folder or not readable(folder).is_dir():
        raise CheckpointError(
            "the adapters' base is not there",
            got=str(folder) or None,
            expected="the run folder or Hugging Face folder they were trained beside",
            do="give it with --base",
        )
    if is_run(folder):
        reader = CheckpointReader(folder)
        refuse_adapters(reader)
    else:
        reader = open_folder(folder, None)
    if config is not None and reader.config != config:
        raise CheckpointError(
            "base is another model",
            got=reader.config,
            at=folder,
            expected=config,
            do="give the model the adapters were trained beside",
        )
    return reader
