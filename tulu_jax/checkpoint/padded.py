"""A model's weights with the vocabulary rounded up, for tools that want a multiple of 64 or 128.

We store and export the true number of tokens: LLaMA's with `<pad>` are 32,001, and what a mesh
needs beyond that is added inside a step. The rows added here stand for no token; each is the mean
of the true ones, in float64 and rounded once, as in `resize`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from tulu_jax.checkpoint.arrays import ParamPath, ParamsReader
from tulu_jax.checkpoint.resize import VOCABULARY_AXIS
from tulu_jax.errors import ConfigError
from tulu_jax.models import ModelConfig

_BLOCK = 1024


def padded(reader: ParamsReader, config: ModelConfig, multiple: int) -> PaddedVocabulary:
    """The weights of `reader` with the tokens of `config` rounded up to a multiple.

    Raises:
      ConfigError: the multiple is not a positive number.
    """
    if multiple < 1:
        raise ConfigError(
            "--pad_vocab_to is out of range", got=multiple, expected="a multiple, such as 64"
        )
    size = -(-config.vocab_size // multiple) * multiple
    return PaddedVocabulary(reader, config.vocab_size, dataclasses.replace(config, vocab_size=size))


@dataclasses.dataclass(frozen=True)
class PaddedVocabulary:
    """A `ParamsReader` over another, with rows added to the embedding and the head."""

    inner: ParamsReader
    old: int
    """Tokens that `inner` has."""
    config: ModelConfig
    """The model with the rows added."""

    @property
    def identity(self) -> str | None:
        """What names these very weights, if the reader beneath has a name."""
        name = getattr(self.inner, "identity", None)
        return name and f"{name} padded to {self.config.vocab_size}"

    def paths(self) -> list[ParamPath]:
        """Every weight of the model."""
        return self.inner.paths()

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight, with the new rows."""
        shape, axis = list(self.inner.shape(path)), VOCABULARY_AXIS.get(path)
        if axis is not None:
            shape[axis] = self.config.vocab_size
        return tuple(shape)

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is stored in."""
        return self.inner.dtype(path)

    def rows_at_once(self, path: ParamPath) -> int:
        """Rows of the first axis that are read together, however few are asked for."""
        return getattr(self.inner, "rows_at_once", lambda _: 1)(path)

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight."""
        return self.read_part(path, 0, self.shape(path)[0])

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis."""
        axis = VOCABULARY_AXIS.get(path)
        if axis is None or self.config.vocab_size == self.old:
            return self.inner.read_part(path, start, stop)
        mean = self._means[path]
        if axis == 1:
            own = self.inner.read_part(path, start, stop)
            new = np.repeat(mean[start:stop, None], self.config.vocab_size - self.old, axis=1)
            return np.concatenate([own, new], axis=1)
        new = np.repeat(mean[None], max(stop - max(start, self.old), 0), axis=0)
        if start >= self.old:
            return new
        own = self.inner.read_part(path, start, min(stop, self.old))
        return np.concatenate([own, new]) if len(new) else own

    @functools.cached_property
    def _means(self) -> dict[ParamPath, np.ndarray]:
        return {path: self._mean(path) for path in self.paths() if path in VOCABULARY_AXIS}

    def _mean(self, path: ParamPath) -> np.ndarray:
        """The mean over the true tokens, a block of rows at a time."""
        axis, rows = VOCABULARY_AXIS[path], self.inner.shape(path)[0]
        sums: list[Any] = []
        for start in range(0, rows, _BLOCK):
            part = self.inner.read_part(path, start, min(start + _BLOCK, rows))
            sums.append(part.astype(np.float64).sum(axis))
        total: Any = sum(sums) if axis == 0 else np.concatenate(sums)
        return (total / self.old).astype(self.dtype(path))
