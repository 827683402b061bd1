"""A model's weights with more tokens: rows added to the embedding and the head.

The paper's tokenizer has one token more than LLaMA's, `<pad>`: 32,001. A new row is the mean of the
rows there are, in float64 and rounded once, so it is the same on every machine. A token that was
never trained then gets about the average logit, and not the best one by accident.

    embedding [[0, 2],  with one token more  [[0, 2],
               [4, 6]]                        [4, 6],
                                              [2, 4]]

Some tools want the vocabulary rounded up to a multiple of 64 or 128. We store and export the true
number of tokens, and what a mesh needs beyond that is added inside a step; on request an export has
rows that stand for no token.

Source: the mean is what `resize_token_embeddings` of transformers >= 4.46 draws new rows around.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tulu_jax.checkpoint.hf.load import HfFolder
from tulu_jax.checkpoint.reader import Index, ParamPath, ParamsReader
from tulu_jax.errors import CheckpointError, ConfigError
from tulu_jax.models import ModelConfig

VOCABULARY_AXIS: dict[ParamPath, int] = {("embedding",): 0, ("lm_head",): 1}
"""The weights with a row (or column) a token."""
_BLOCK = 4096


def resized(folder: HfFolder, vocab_size: int | None) -> HfFolder | Resized:
    """The folder's weights with `vocab_size` tokens; the folder itself when it has as many.

    Raises:
      CheckpointError: fewer tokens than the model has: rows that were trained are not dropped.
    """
    old = folder.config.vocab_size
    if vocab_size is None or vocab_size == old:
        return folder
    if vocab_size < old:
        raise CheckpointError(
            "vocabulary would shrink",
            got=f"{vocab_size} tokens",
            at=folder.folder,
            expected=f"at least the model's {old}",
            do="leave --vocab_size out, or give MODEL as many: trained rows are not dropped",
        )
    added = f"added {vocab_size - old} rows to the vocabulary of {old}: the mean of its rows"
    config = dataclasses.replace(folder.config, vocab_size=vocab_size)
    return Resized(folder, old, config, [*folder.notes, added], folder.generation)


def padded(reader: ParamsReader, config: ModelConfig, multiple: int) -> Resized:
    """The weights of `reader` with the tokens of `config` rounded up to a multiple.

    Raises:
      ConfigError: the multiple is not a positive number.
    """
    if multiple < 1:
        raise ConfigError(
            "--pad_vocab_to is out of range", got=multiple, expected="a multiple, such as 64"
        )
    size = -(-config.vocab_size // multiple) * multiple
    return Resized(reader, config.vocab_size, dataclasses.replace(config, vocab_size=size))


@dataclasses.dataclass(frozen=True)
class Resized(ParamsReader):
    """A reader over another, with rows added for new tokens."""

    inner: ParamsReader
    old: int
    """Tokens that `inner` has."""
    config: ModelConfig
    """The model with the rows added."""
    notes: Sequence[str] = ()
    generation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The fields of the model's `generation_config.json`."""

    @property
    def identity(self) -> str | None:
        """What names these very weights, if the reader beneath has a name."""
        name = self.inner.identity
        return name and f"{name} padded to {self.config.vocab_size}"

    def paths(self) -> list[ParamPath]:
        """Every weight of the model."""
        return self.inner.paths()

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight, with the new rows."""
        axis, shape = VOCABULARY_AXIS.get(path), list(self.inner.shape(path))
        if axis is not None:
            shape[axis] = self.config.vocab_size
        return tuple(shape)

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is given in."""
        return self.inner.dtype(path)

    @property
    def far(self) -> bool:
        """As the reader that it grows."""
        return self.inner.far

    def file_order(self, path: ParamPath) -> list[int]:
        """As the reader that it grows."""
        return self.inner.file_order(path)

    def rows_at_once(self, path: ParamPath) -> int:
        """Rows of the first axis that are read together, however few are asked for."""
        return self.inner.rows_at_once(path)

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis."""
        if path in VOCABULARY_AXIS:
            return super().read_part(path, start, stop)
        return self.inner.read_part(path, start, stop)

    def read_slice(self, path: ParamPath, index: Index) -> np.ndarray:
        """A part of one weight."""
        axis = VOCABULARY_AXIS.get(path)
        if axis is None:
            return self.inner.read_slice(path, index)
        shape = self.shape(path)
        index = (*index, *(slice(None) for _ in shape[len(index) :]))
        start, stop, _ = index[axis].indices(shape[axis])
        there = list(index)
        there[axis] = slice(min(start, self.old), min(stop, self.old))
        own = self.inner.read_slice(path, tuple(there))
        count = max(stop - max(start, self.old), 0)
        if not count:
            return own
        mean = self._means[path][index[1 - axis]]
        return np.concatenate([own, np.repeat(np.expand_dims(mean, axis), count, axis)], axis)

    @functools.cached_property
    def _means(self) -> dict[ParamPath, np.ndarray]:
        return {path: self._mean(path) for path in self.paths() if path in VOCABULARY_AXIS}

    def _mean(self, path: ParamPath) -> np.ndarray:
        """The mean over the vocabulary, a block of tokens at a time."""
        axis = VOCABULARY_AXIS[path]
        total: Any = 0.0
        for start in range(0, self.old, _BLOCK):
            block = [slice(None), slice(None)]
            block[axis] = slice(start, min(start + _BLOCK, self.old))
            values = self.inner.read_slice(path, tuple(block))
            total = total + values.astype(np.float64).sum(axis)
        return (total / self.old).astype(self.dtype(path))
