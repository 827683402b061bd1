"""Hugging Face folder -> config and weights, one parameter at a time where wanted."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.checkpoint.arrays import LazyArray, ParamPath
from tulu_jax.checkpoint.hf.config import read_config
from tulu_jax.checkpoint.hf.files import find_tensors
from tulu_jax.checkpoint.hf.names import (
    EMBEDDING,
    HARMLESS,
    LM_HEAD,
    Weight,
    expected_tensors,
    weights_of,
)
from tulu_jax.checkpoint.hf.tensors import (
    DTYPE_NAMES,
    DTYPES,
    TensorSpec,
    cast,
    numpy_dtype,
    read_tensor,
)
from tulu_jax.errors import CheckpointError
from tulu_jax.models import ModelConfig, abstract_params

__all__ = [
    "DTYPE_NAMES",
    "HfFolder",
    "cast",
    "load",
    "num_weights",
    "numpy_dtype",
    "open_folder",
    "put",
]


def load(path: str | Path, dtype: str | None = "float32") -> tuple[ModelConfig, dict[str, Any]]:
    """The model in a Hugging Face folder: its config, and its weights as NumPy arrays.

    Needs memory for the whole model and one tensor; `open_folder` reads parameter by parameter.

    Args:
      path: folder with config.json and safetensors, whole or in shards.
      dtype: float32, bfloat16 or float16; None keeps what is stored.

    Raises:
      CheckpointError: the folder is incomplete, damaged, or not a LLaMA; nothing is guessed.
    """
    folder = open_folder(path, dtype)
    params: dict[str, Any] = {}
    for weight_path in folder.paths():
        put(params, weight_path, folder.read(weight_path))
    return folder.config, params


def open_folder(path: str | Path, dtype: str | None = "float32") -> HfFolder:
    """A checked Hugging Face folder whose weights are read when asked for.

    Raises:
      CheckpointError: as `load`; every name, shape and size is checked here, before any read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(
            "no such folder", got=str(path), expected="a Hugging Face folder with config.json"
        )
    config = read_config(folder)
    specs = find_tensors(folder)
    notes = _check_tensors(config, specs, folder)
    return HfFolder(folder, config, specs, None if dtype is None else numpy_dtype(dtype), notes)


@dataclasses.dataclass(frozen=True)
class HfFolder:
    """A `ParamsReader` over a Hugging Face folder; holds one parameter and one tensor at most."""

    folder: Path
    config: ModelConfig
    specs: dict[str, TensorSpec]
    dtype: np.dtype | None
    notes: list[str]
    """What was left out and why, for people."""

    def paths(self) -> list[ParamPath]:
        """Every weight of the model."""
        return [row.path for row in weights_of(self.config)]

    def stored_dtype(self) -> np.dtype:
        """The dtype of the embedding in the files, which stands for the whole."""
        spec = self.specs[EMBEDDING.pattern]
        return DTYPES.get(spec.dtype, np.dtype(np.float32))

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight in our layout; per-layer weights come stacked [L, ...]."""
        row = next(row for row in weights_of(self.config) if row.path == path)
        shape = _shapes(self.config)[path]
        names = row.hf_names(self.config)
        dtype = self.dtype or DTYPES.get(self.specs[names[0]].dtype, np.dtype(np.float32))
        if not row.per_layer:
            return self._tensor(row, names[0], shape, dtype)
        stacked = np.empty(shape, dtype)
        for layer, name in enumerate(names):
            stacked[layer] = self._tensor(row, name, shape[1:], dtype)
        return stacked

    def lazy_params(self) -> dict[str, Any]:
        """The tree of weights with a `LazyArray` at every leaf."""
        tree: dict[str, Any] = {}
        shapes = _shapes(self.config)
        for row in weights_of(self.config):
            dtype = self.dtype or self.stored_dtype()
            lazy = LazyArray(shapes[row.path], dtype, lambda path=row.path: self.read(path))
            put(tree, row.path, lazy)
        return tree

    def _tensor(
        self, row: Weight, name: str, shape: tuple[int, ...], dtype: np.dtype
    ) -> np.ndarray:
        tensor = cast(read_tensor(self.specs[name]), dtype, name)
        return np.ascontiguousarray(row.from_hf(tensor, shape))


def put(tree: dict[str, Any], path: ParamPath, leaf: Any) -> None:
    """Sets the leaf at `path`, making the dicts on the way."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _shapes(config: ModelConfig) -> dict[ParamPath, tuple[int, ...]]:
    shapes: dict[ParamPath, tuple[int, ...]] = {}
    tree = abstract_params(config)
    for row in weights_of(config):
        leaf: Any = tree
        for key in row.path:
            leaf = leaf[key]
        shapes[row.path] = tuple(leaf.shape)
    return shapes


def _check_tensors(config: ModelConfig, specs: dict[str, TensorSpec], folder: Path) -> list[str]:
    """Refuses what does not fit the config; returns notes on what is left out on purpose."""
    expected = expected_tensors(config)
    missing = sorted(set(expected) - set(specs))
    if missing:
        raise CheckpointError(
            f"{_tensors(missing)} missing",
            got=f"none named {_some(missing)}",
            at=folder,
            expected=f"the {len(expected)} tensors of a LLaMA with {config.num_layers} layers",
            do="check that the download is complete and config.json belongs to it",
        )
    extra = sorted(set(specs) - set(expected))
    harmless = [name for name in extra if HARMLESS.search(name)]
    tied = [name for name in extra if name == LM_HEAD.pattern and config.tie_embeddings]
    unknown = sorted(set(extra) - set(harmless) - set(tied))
    if unknown:
        raise CheckpointError(
            f"{_tensors(unknown)} not part of the model that config.json describes",
            got=_some(unknown),
            at=folder,
            expected=f"the {len(expected)} tensors of a LLaMA with {config.num_layers} layers",
            do="check num_hidden_layers, biases and adapters",
        )
    wrong = [name for name, shape in expected.items() if specs[name].shape != shape]
    if wrong:
        raise CheckpointError(
            f"{_tensors(wrong)} misshapen",
            got=f"{wrong[0]} {list(specs[wrong[0]].shape)}",
            at=specs[wrong[0]].file,
            expected=f"{list(expected[wrong[0]])}, as config.json says",
            do="check that config.json belongs to these weights",
        )
    notes = [f"ignored {len(harmless)} rotary_emb.inv_freq tensors: config.json determines them"]
    return notes[: bool(harmless)] + [_check_tied(specs, folder) for _ in tied]


def _check_tied(specs: dict[str, TensorSpec], folder: Path) -> str:
    head, embedding = specs[LM_HEAD.pattern], specs[EMBEDDING.pattern]
    same = head.shape == embedding.shape and head.dtype == embedding.dtype
    if not (same and np.array_equal(_bytes(head), _bytes(embedding))):
        raise CheckpointError(
            "output head differs from the embedding",
            got=f"{LM_HEAD.pattern} unlike {EMBEDDING.pattern}",
            at=folder,
            expected="equal tensors, because config.json says tie_word_embeddings=true",
            do="set tie_word_embeddings to false if the head is really its own",
        )
    return f"ignored {LM_HEAD.pattern}: it equals the embedding it is tied to"


def _bytes(spec: TensorSpec) -> np.ndarray:
    return read_tensor(spec).reshape(-1).view(np.uint8)


def _tensors(names: list[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def num_weights(config: ModelConfig) -> int:
    """Number of weights in the tensors of a checkpoint of this config."""
    return sum(math.prod(shape) for shape in expected_tensors(config).values())
