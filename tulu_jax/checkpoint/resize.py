"""A model's weights with another number of tokens: rows added to the embedding and the head.

The paper's tokenizer has one token more than LLaMA's, `<pad>`: 32,001. A new row is the mean of the
rows there are, in float64 and rounded once, so it is the same on every machine. A token that was
never trained then gets about the average logit, and not the best one by accident.

    embedding [[0, 2],  with one token more  [[0, 2],
               [4, 6]]                        [4, 6],
                                              [2, 4]]

Source: the mean is what `resize_token_embeddings` of transformers >= 4.46 draws new rows around.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tulu_jax.checkpoint.arrays import LazyArray, ParamPath
from tulu_jax.checkpoint.hf.load import HfFolder, Index, lazy_weight, param_shapes, put
from tulu_jax.checkpoint.hf.names import weights_of
from tulu_jax.errors import CheckpointError
from tulu_jax.models import ModelConfig

VOCABULARY_AXIS: dict[ParamPath, int] = {("embedding",): 0, ("lm_head",): 1}
"""The weights with a row (or column) a token."""
_BLOCK = 4096


def resized(folder: HfFolder, vocab_size: int | None) -> HfFolder | Resized:
    """The folder's weights with `vocab_size` tokens; the folder itself when it has as many.

    Raises:
      CheckpointError: fewer tokens than the model has: rows that were trained are not dropped.
    """
    if vocab_size is None or vocab_size == folder.config.vocab_size:
        return folder
    if vocab_size < folder.config.vocab_size:
        raise CheckpointError(
            "vocabulary would shrink",
            got=f"{vocab_size} tokens",
            at=folder.folder,
            expected=f"at least the model's {folder.config.vocab_size}",
            do="leave --vocab_size out, or give MODEL as many: trained rows are not dropped",
        )
    return Resized(folder, dataclasses.replace(folder.config, vocab_size=vocab_size))


@dataclasses.dataclass(frozen=True)
class Resized:
    """A `ParamsReader` over a folder, with rows added for new tokens."""

    folder: HfFolder
    config: ModelConfig

    @property
    def notes(self) -> list[str]:
        """What was left out or added and why, for people."""
        old, new = self.folder.config.vocab_size, self.config.vocab_size
        added = f"added {new - old} rows to the vocabulary of {old}: the mean of its rows"
        return [*self.folder.notes, added]

    @property
    def generation(self) -> Mapping[str, Any]:
        """The fields of the folder's `generation_config.json`."""
        return self.folder.generation

    @functools.cached_property
    def _shapes(self) -> dict[ParamPath, tuple[int, ...]]:
        return param_shapes(self.config)

    @functools.cached_property
    def _means(self) -> dict[ParamPath, np.ndarray]:
        return {path: self._mean(path) for path in self.paths() if path in VOCABULARY_AXIS}

    def paths(self) -> list[ParamPath]:
        """Every weight of the model."""
        return self.folder.paths()

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight, with the new rows."""
        return self._shapes[path]

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is given in."""
        return self.folder.dtype(path)

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight."""
        return self.read_slice(path, ())

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis."""
        return self.read_slice(path, (slice(start, stop),))

    def read_slice(self, path: ParamPath, index: Index) -> np.ndarray:
        """A part of one weight."""
        axis = VOCABULARY_AXIS.get(path)
        if axis is None:
            return self.folder.read_slice(path, index)
        shape, old = self.shape(path), self.folder.config.vocab_size
        index = (*index, *(slice(None) for _ in shape[len(index) :]))
        start, stop, _ = index[axis].indices(shape[axis])
        there = list(index)
        there[axis] = slice(min(start, old), min(stop, old))
        own = self.folder.read_slice(path, tuple(there))
        count = max(stop - max(start, old), 0)
        other = index[1 - axis]
        new = np.repeat(np.expand_dims(self._means[path][other], axis), count, axis)
        return np.concatenate([own, new], axis)

    def _mean(self, path: ParamPath) -> np.ndarray:
        """The mean over the vocabulary, a block of tokens at a time."""
        axis, old = VOCABULARY_AXIS[path], self.folder.config.vocab_size
        total: Any = 0.0
        for start in range(0, old, _BLOCK):
            block = [slice(None), slice(None)]
            block[axis] = slice(start, min(start + _BLOCK, old))
            values = self.folder.read_slice(path, tuple(block))
            total = total + values.astype(np.float64).sum(axis)
        return (total / old).astype(self.dtype(path))

    def lazy_params(self) -> dict[str, Any]:
        """The tree of weights with a `LazyArray` at every leaf."""
        tree: dict[str, Any] = {}
        for row in weights_of(self.config):
            lazy: LazyArray = lazy_weight(self, row.path, stacked=row.per_layer)
            put(tree, row.path, lazy)
        return tree
