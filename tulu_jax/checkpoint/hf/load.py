"""Hugging Face folder -> config and weights: whole, one parameter or one slice at a time."""

from __future__ import annotations

import dataclasses
import functools
import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tulu_jax.checkpoint.hf.config import read_config
from tulu_jax.checkpoint.hf.families import hf_family
from tulu_jax.checkpoint.hf.files import find_tensors, misplaced
from tulu_jax.checkpoint.hf.generation import other_tokens, read_generation
from tulu_jax.checkpoint.hf.kinds import ADAPTER_CONFIG, refuse_unfinished
from tulu_jax.checkpoint.hf.names import (
    HARMLESS,
    expected_tensors,
    tensor_names,
    weights_of,
)
from tulu_jax.checkpoint.hf.tensors import (
    DTYPES,
    Stored,
    copy_cast,
    numpy_dtype,
    other_dtype,
    read_tensor,
    taken,
)
from tulu_jax.checkpoint.hf.weights import Weight
from tulu_jax.checkpoint.reader import Index, ParamPath, ParamsReader
from tulu_jax.errors import CheckpointError
from tulu_jax.models import ModelConfig
from tulu_jax.places import Place, is_address, readable


def load(path: str | Place, dtype: str | None = "float32") -> tuple[ModelConfig, dict[str, Any]]:
    """The model in a Hugging Face folder: its config, and its weights as NumPy arrays.

    Needs memory for the whole model; `open_folder` reads parameter by parameter.

    Args:
      path: folder with config.json and the weights: safetensors or torch's files, one or shards.
      dtype: float32, bfloat16 or float16; None keeps what is stored.

    Raises:
      CheckpointError: the folder is incomplete, damaged, or of no family we have.
    """
    folder = open_folder(path, dtype)
    return folder.config, folder.params()


def open_folder(path: str | Place, dtype: str | None = "float32") -> HfFolder:
    """A checked Hugging Face folder whose weights are read when asked for.

    Raises:
      CheckpointError: as `load`; every name, shape and size is checked here, before any read.
    """
    folder = readable(path)
    refuse_unfinished(folder)
    config = read_config(folder)
    tensors = find_tensors(folder)
    found = checked_folder(folder, config, tensors, dtype)
    kept = read_generation(folder, config)
    notes = [*found.notes, *misplaced(folder, tensors), *other_tokens(config, kept)]
    return dataclasses.replace(found, generation=kept, notes=notes)


def checked_folder(
    folder: Place, config: ModelConfig, stored: Mapping[str, Stored], dtype: str | None
) -> HfFolder:
    """The folder, once its tensors are known to be those of its config.

    Raises:
      CheckpointError: a tensor is missing, misshapen, of a wrong dtype or not part of the model.
    """
    names, prefix = tensor_names(config, stored)
    tensors = {names[name]: tensor for name, tensor in stored.items()}
    if len(tensors) != len(stored):
        twice = sorted(name for name in names if list(names.values()).count(names[name]) > 1)
        raise CheckpointError("tensor is there twice", got=twice[:5], at=folder)
    notes = _check_tensors(config, tensors, folder)
    if prefix is not None:
        notes.insert(0, f"names of tensors have {prefix} in them: read without it")
    if (folder / ADAPTER_CONFIG).is_file():
        notes.append("an adapter (adapter_config.json) lies beside the model: it is not read")
    return HfFolder(folder, config, tensors, None if dtype is None else numpy_dtype(dtype), notes)


@dataclasses.dataclass(frozen=True)
class HfFolder(ParamsReader):
    """The weights in a Hugging Face folder."""

    folder: Place
    config: ModelConfig
    specs: Mapping[str, Stored]
    wanted_dtype: np.dtype | None
    """The dtype weights are given in; None: as stored."""
    notes: Sequence[str] = ()
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The fields of `generation_config.json`."""

    @property
    def far(self) -> bool:
        """Whether the files lie in a bucket."""
        return is_address(self.folder)

    def file_order(self, path: ParamPath) -> list[int]:
        """As `ParamsReader.file_order`."""
        row, shape = self._weights[path], self.shape(path)
        stored, layers = self.specs[row.tensor.hf_names(self.config)[0]], int(row.tensor.per_layer)
        whole = np.frombuffer(mmap.mmap(-1, max(1, math.prod(stored.shape))), np.int8)
        view = row.from_hf(whole[: math.prod(stored.shape)].reshape(stored.shape), shape[layers:])
        axes = sorted(range(view.ndim), key=lambda axis: -view.strides[axis])
        return [*range(layers), *(layers + axis for axis in axes)]

    @functools.cached_property
    def _weights(self) -> dict[ParamPath, Weight]:
        return {row.path: row for row in weights_of(self.config)}

    def paths(self) -> list[ParamPath]:
        """Every weight of the model."""
        return list(self._weights)

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight in our layout."""
        return self._weights[path].shape(self.config)

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is given in."""
        first = self._weights[path].tensor.hf_names(self.config)[0]
        return self.wanted_dtype or DTYPES[self.specs[first].dtype]

    def read_slice(self, path: ParamPath, index: Index) -> np.ndarray:
        """A part of one weight; of the files only its own bytes are read.

        Raises:
          CheckpointError: a file shrank since it was opened, a weight does not fit float16, or is
            NaN or infinite.
        """
        row, shape = self._weights[path], self.shape(path)
        index = (*index, *(slice(None) for _ in shape[len(index) :]))
        sizes = [len(range(*part.indices(n))) for part, n in zip(index, shape, strict=True)]
        result = np.empty(sizes, self.dtype(path))
        names = row.tensor.hf_names(self.config)
        if not row.tensor.per_layer:
            self._fill(result, row, names[0], shape, index)
            return result
        for place, layer in enumerate(range(*index[0].indices(shape[0]))):
            self._fill(result[place], row, names[layer], shape[1:], index[1:])
        return result

    def _fill(
        self, target: np.ndarray, row: Weight, name: str, shape: tuple[int, ...], index: Index
    ) -> None:
        stored = self.specs[name]
        part = taken(stored, lambda tensor: row.from_hf(tensor, shape)[index])
        copy_cast(target, part, name, where=stored.file)
        if target.shape == shape and _must_not_vanish(row) and not target.any():
            raise CheckpointError(
                "weights are all zero",
                got=f"{target.size:,} zeros in {name}",
                at=stored.file,
                expected="numbers: with these the model says the same to every text",
                do="save or copy the weights again; a sharded model has to be gathered first",
            )


def _must_not_vanish(row: Weight) -> bool:
    """Whether no working model has zeros there: scales of norms, embedding and output head.

    Matrices of layers may be zero, as in blocks that are put in to be trained; so may biases.
    """
    return row.path[-1] == "scale" or row.path in (("embedding",), ("lm_head",))


def _check_tensors(config: ModelConfig, specs: Mapping[str, Stored], folder: Place) -> list[str]:
    """Refuses what does not fit the config; returns notes on what is left out on purpose."""
    expected = expected_tensors(config)
    model = (
        f"the {len(expected)} tensors of a {config.family} model with {config.num_layers} layers"
    )
    missing = sorted(set(expected) - set(specs))
    if missing:
        found = sorted(specs) if len(missing) > len(expected) / 2 else []
        raise CheckpointError(
            f"{_tensors(missing)} missing",
            got=f"none named {_some(missing)}" + (f"; there are {_some(found)}" if found else ""),
            at=folder,
            expected=model,
            do="merge it in the program that made it, and give the whole model: these are weights "
            "with adapters beside them"
            if any(".lora_" in name or ".base_layer." in name for name in specs)
            else "check that no file is missing and config.json belongs to these weights",
        )
    extra = sorted(set(specs) - set(expected))
    harmless = {name: found[2] for name in extra if (found := HARMLESS.search(name))}
    tied = [name for name in extra if name == hf_family(config).head and config.tie_embeddings]
    unknown = sorted(set(extra) - set(harmless) - set(tied))
    if unknown:
        raise CheckpointError(
            f"{_tensors(unknown)} not part of the model that config.json describes",
            got=_some(unknown),
            at=folder,
            expected=model,
            do="check num_hidden_layers, biases and adapters",
        )
    _check_shapes(specs, expected)
    kinds = "/".join(sorted(set(harmless.values())))
    notes = [f"ignored {len(harmless)} {kinds} tensors: config.json determines them"]
    notes += _other_base(config, next((specs[n] for n in harmless if "inv_freq" in n), None))
    return notes[not harmless :] + [_check_tied(config, specs, folder) for _ in tied]


def _other_base(config: ModelConfig, rates: Stored | None) -> list[str]:
    """A note where stored rotary rates, base ** (-i / number), have another base than the config.

    Of rates in 16 bits the base comes out to within a third.
    """
    theta = getattr(config, "rope_theta", None)
    found = np.zeros(0) if rates is None else read_tensor(rates).astype(np.float64).reshape(-1)
    if theta is None or len(found) < 2:
        return []
    with np.errstate(all="ignore"):
        base = float((found[0] / found[1]) ** len(found))
    if 2 / 3 < base / theta < 3 / 2:
        return []
    return [
        f"rotary_emb.inv_freq has the base {base:.2g}, config.json rope_theta={theta:g}, which "
        "counts: see whether it is that of these weights"
    ]


def _check_shapes(specs: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [name for name, shape in expected.items() if specs[name].shape != shape]
    if wrong:
        raise CheckpointError(
            f"{_tensors(wrong)} misshapen",
            got=f"{wrong[0]} {list(specs[wrong[0]].shape)}",
            at=specs[wrong[0]].file,
            expected=f"{list(expected[wrong[0]])}, as config.json says",
            do="check that config.json belongs to these weights",
        )
    for name in expected:
        if specs[name].dtype not in DTYPES:
            found = f"{name} in {specs[name].dtype}"
            raise other_dtype(specs[name].dtype, found, specs[name].file)


def _check_tied(config: ModelConfig, specs: Mapping[str, Stored], folder: Place) -> str:
    family = hf_family(config)
    names = family.head, family.embedding
    head, embedding = (specs[name] for name in names)
    same = head.shape == embedding.shape and head.dtype == embedding.dtype
    if not (same and _same_bytes(head, embedding)):
        raise CheckpointError(
            "output head differs from the embedding",
            got=f"{names[0]} unlike {names[1]}",
            at=folder,
            expected="equal tensors, because config.json says tie_word_embeddings=true",
            do="set tie_word_embeddings to false if the head is really its own",
        )
    return f"ignored {names[0]}: it equals the embedding it is tied to"


def _same_bytes(left: Stored, right: Stored) -> bool:
    first, second = (read_tensor(tensor).reshape(-1).view(np.uint8) for tensor in (left, right))
    return np.array_equal(first, second)


def _tensors(names: list[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
