"""The weights of a model wherever they lie, read one or a part of one at a time."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tulu_jax.checkpoint.lazy import LazyArray

ParamPath = tuple[str, ...]
"""Where a weight lies in the tree, such as ("layers", "attention", "query")."""
Index = tuple[slice, ...]
"""A part of a weight: a slice an axis; axes that are not named are taken whole."""
MAX_PIECES = 64
"""Most pieces in which a weight is read: of one without layers a row would be little."""


class ParamsReader(abc.ABC):
    """The weights of one model; nothing that was read is kept."""

    notes: Sequence[str] = ()
    """What was left out or added and why, for people."""

    @property
    def far(self) -> bool:
        """Whether the files lie in a bucket, where every byte read is one on the network."""
        return False

    def file_order(self, path: ParamPath) -> list[int]:
        """The axes of one weight from those whose parts lie furthest apart in its files."""
        return list(range(len(self.shape(path))))

    @property
    def identity(self) -> str | None:
        """What names these very weights; None where nothing does."""
        return None

    @abc.abstractmethod
    def paths(self) -> list[ParamPath]:
        """Every weight there is."""

    @abc.abstractmethod
    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight; weights of layers are stacked, [L, ...]."""

    @abc.abstractmethod
    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is given in."""

    @abc.abstractmethod
    def read_slice(self, path: ParamPath, index: Index) -> np.ndarray:
        """A part of one weight as a host array.

        Raises:
          CheckpointError: its numbers are missing, damaged, or none that can be given.
        """

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis."""
        return self.read_slice(path, (slice(start, stop),))

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight."""
        return self.read_slice(path, ())

    def pieces(self, path: ParamPath) -> Iterator[tuple[slice, np.ndarray]]:
        """One weight in runs of rows: which rows, and their numbers."""
        size = self.shape(path)[0]
        rows = max(self.rows_at_once(path), -(-size // MAX_PIECES))
        for start in range(0, size, rows):
            stop = min(start + rows, size)
            yield slice(start, stop), self.read_part(path, start, stop)

    def rows_at_once(self, path: ParamPath) -> int:
        """Rows of the first axis that are read together, however few are asked for."""
        return 1

    def params(self) -> dict[str, Any]:
        """The tree of all weights as host arrays."""
        return tree_of({path: self.read(path) for path in self.paths()})

    def lazy_params(self) -> dict[str, Any]:
        """The tree of weights with a `LazyArray` at every leaf."""
        return tree_of({path: self._lazy(path) for path in self.paths()})

    def _lazy(self, path: ParamPath) -> LazyArray:
        return LazyArray(
            self.shape(path),
            self.dtype(path),
            lambda: self.read(path),
            lambda start, stop: self.read_part(path, start, stop),
            stacked=path[0] == "layers",
        )


def tree_of(leaves: Mapping[ParamPath, Any]) -> dict[str, Any]:
    """The nested dict that has these leaves.

    >>> tree_of({("a", "b"): 1, ("a", "c"): 2})
    {'a': {'b': 1, 'c': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = leaf
    return tree


def leaves_of(tree: Any, path: ParamPath = ()) -> dict[ParamPath, Any]:
    """The leaves of a nested dict by path."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    parts = [leaves_of(child, (*path, key)) for key, child in tree.items()]
    return {path: leaf for part in parts for path, leaf in part.items()}


class TreeReader(ParamsReader):
    """A reader over weights in memory (NumPy or JAX, on one process)."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Reads from the nested dict `params`."""
        self._leaves: dict[ParamPath, Any] = leaves_of(params)

    def paths(self) -> list[ParamPath]:
        """Every weight in the tree."""
        return list(self._leaves)

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight."""
        return tuple(self._leaves[path].shape)

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype of one weight."""
        return np.dtype(self._leaves[path].dtype)

    def read_slice(self, path: ParamPath, index: Index) -> np.ndarray:
        """A part of one weight."""
        return np.asarray(self._leaves[path][index])
