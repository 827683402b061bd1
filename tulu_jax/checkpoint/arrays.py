"""Weights in and out of Orbax checkpoints one array at a time.

`tulu import` and `tulu export` move models that are larger than the memory of the machine they run
on. A checkpoint is written from `LazyArray`s, made part by part and dropped when written, and read
through a `ParamsReader`, which holds the part asked for.

A run folder looks like this:

    RUN/checkpoints/0/state   arrays: params/..., and in training runs opt_state/... and step
    RUN/checkpoints/0/meta    JSON: model config, tokenizer, versions
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import type_handlers

from tulu_jax.checkpoint.owner import OWNER_FILE, owned
from tulu_jax.checkpoint.parts import LazyArray, LazyHandler, PartReader, uses_ocdbt
from tulu_jax.checkpoint.trouble import no_checkpoint, unread, unwritable
from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.files import read_json, user_path

__all__ = [
    "CheckpointReader",
    "LazyArray",
    "ParamPath",
    "ParamsReader",
    "TreeReader",
    "checkpoints_dir",
    "complete_steps",
    "save_params",
]

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns that there is nothing to merge

T = TypeVar("T")

ParamPath = tuple[str, ...]
"""Where a weight lies in the tree, such as ("layers", "attention", "query")."""


class ParamsReader(Protocol):
    """Anything that gives weights one at a time."""

    def paths(self) -> list[ParamPath]:
        """Every weight there is."""
        ...

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight."""
        ...

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is stored in."""
        ...

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight as a host array."""
        ...

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis."""
        ...


def checkpoints_dir(run: str | Path) -> Path:
    """The folder of a run that holds one folder a step.

    Without `..`, which TensorStore takes for no path.
    """
    return user_path(run, name="run folder") / "checkpoints"


def save_params(
    run: str | Path,
    params: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    before_commit: Callable[[], Any] | None = None,
) -> Path:
    """Writes step 0 of a new run: weights only. The folder appears under its name when whole.

    Args:
      run: run folder; must hold no checkpoint yet.
      params: nested dict whose leaves are arrays or `LazyArray`s.
      meta: JSON values to keep beside them; `meta["model"]` is the model config's fields.
      before_commit: called when everything is written; if it raises, the run has no checkpoint.

    Raises:
      CheckpointError: the run has checkpoints already, or the folder cannot be written.
      ConfigError: a run goes on in the folder.
    """
    run = user_path(run, name="run folder")
    is_owned = (run / OWNER_FILE).exists()  # else nobody is there, and nothing is to be left
    with owned(run) if is_owned else contextlib.nullcontext():
        return _save_params(run, params, meta, before_commit)


def _save_params(
    run: str | Path,
    params: Mapping[str, Any],
    meta: Mapping[str, Any],
    before_commit: Callable[[], Any] | None,
) -> Path:
    folder = checkpoints_dir(run)
    steps = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if any(step.isdecimal() for step in steps):
        raise CheckpointError(
            "run folder already holds checkpoints",
            got=sorted(steps)[:5],
            at=folder,
            do="choose another --model_dir",
        )
    if (folder.parent / "config.json").is_file():
        raise CheckpointError(
            "run folder holds a Hugging Face model already",
            at=folder.parent,
            do="choose another --model_dir: which of the two is meant would not be clear",
        )
    tree = {"params": jax.tree.map(_as_lazy, dict(params))}
    handler = ocp.PyTreeCheckpointHandler(
        type_handler_registry=type_handlers.create_type_handler_registry(
            (jax.Array, type_handlers.ArrayHandler()),
            (LazyArray, LazyHandler(before_commit)),
        ),
        use_ocdbt=False,
        use_compression=False,  # weights hardly shrink: zstd takes 10 times as long as the disk
    )
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    handlers = {"state": handler, "meta": ocp.JsonCheckpointHandler()}
    try:
        with ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
            manager.save(
                0,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(tree),
                    meta=ocp.args.JsonSave(dict(meta)),
                ),
            )
    except (OSError, ValueError) as error:  # tensorstore tells of a full disk by ValueError
        _clear(folder)
        if isinstance(error, TuluError):
            raise
        kept = "nothing is left that looks complete"
        raise unwritable(folder, error, other="choose another --model_dir", kept=kept) from error
    return folder / "0"


def _clear(folder: Path) -> None:
    """Removes what a failed save left, and the run folder if nothing else is in it."""
    for left in folder.glob("*orbax-checkpoint-tmp*"):
        shutil.rmtree(left, ignore_errors=True)
    for empty in (folder, folder.parent):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def _as_lazy(leaf: Any) -> LazyArray:
    if isinstance(leaf, LazyArray):
        return leaf
    return LazyArray(
        tuple(leaf.shape),
        np.dtype(leaf.dtype),
        lambda: np.asarray(leaf),
        lambda start, stop: np.asarray(leaf[start:stop]) if leaf.ndim else np.asarray(leaf),
    )


def complete_steps(run: str | Path) -> list[int]:
    """Steps of a run whose checkpoints are whole, in rising order.

    A save that was killed leaves a folder with a temporary name, or one without its metadata;
    neither counts.
    """
    folder = checkpoints_dir(run)
    if not folder.is_dir():
        return []
    steps = [child for child in folder.iterdir() if child.name.isdecimal()]
    return sorted(int(step.name) for step in steps if _is_whole(step))


def _is_whole(step: Path) -> bool:
    needed = ("_CHECKPOINT_METADATA", "state/_METADATA", "meta/metadata")
    if not all((step / name).is_file() for name in needed):
        return False
    return (step / "state/manifest.ocdbt").is_file() or not uses_ocdbt(step / "state")


class CheckpointReader:
    """A `ParamsReader` over the `state/params` of one checkpoint of a run."""

    def __init__(self, run: str | Path, step: int | None = None) -> None:
        """Opens the newest whole checkpoint, or that of `step`.

        Raises:
          CheckpointError: no whole checkpoint, or not that one.
        """
        steps = complete_steps(run)
        folder = checkpoints_dir(run)
        if not steps or (step is not None and step not in steps):
            raise no_checkpoint(folder, step, steps)
        self.step = steps[-1] if step is None else step
        self._steps = steps
        self.path = folder / str(self.step)
        self.meta: dict[str, Any] = read_meta(self.path / "meta" / "metadata")
        self._handler = ocp.PyTreeCheckpointHandler()
        self._state = epath.Path(self.path / "state")
        self._tree = self._metadata()
        self._parts = PartReader(self.path / "state")

    @property
    def identity(self) -> str:
        """SHA-256 in hex of what names this very checkpoint: another save has another."""
        digest = hashlib.sha256()
        for name in ("_CHECKPOINT_METADATA", "state/_METADATA", "meta/metadata"):
            digest.update((self.path / name).read_bytes())
        return digest.hexdigest()

    def _metadata(self) -> dict[str, Any]:
        try:
            return self._handler.metadata(self._state).tree["params"]
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise unread("checkpoint is corrupt", self.path, self._steps, error) from error

    def paths(self) -> list[ParamPath]:
        """Every weight in the checkpoint."""
        return list(_leaf_paths(self._tree))

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight."""
        return tuple(_leaf(self._tree, path).shape)

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is stored in."""
        return np.dtype(_leaf(self._tree, path).dtype)

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight as a host array; nothing else is read.

        Raises:
          CheckpointError: its data is missing or damaged.
        """
        shape = self.shape(path)
        return self.read_part(path, 0, shape[0] if shape else 1)

    def rows_at_once(self, path: ParamPath) -> int:
        """Rows of the first axis that are read together, however few are asked for."""
        return self._reading(path, lambda: self._parts.rows_at_once(("params", *path)))

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis; nothing else is read.

        Raises:
          CheckpointError: its data is missing or damaged.
        """
        return self._reading(path, lambda: self._parts.read(("params", *path), start, stop))

    def read_slice(self, path: ParamPath, index: tuple[slice, ...]) -> np.ndarray:
        """A part of one weight, a slice an axis.

        Raises:
          CheckpointError: its data is missing or damaged.
        """
        return self._reading(path, lambda: self._parts.read_slice(("params", *path), index))

    @property
    def in_slices(self) -> bool:
        """Whether a slice can be read without the rest: `tulu import` writes such files."""
        return not uses_ocdbt(self.path / "state")

    def _reading(self, path: ParamPath, read: Callable[[], T]) -> T:
        try:
            return read()
        except (OSError, ValueError, KeyError) as error:
            what = "weight cannot be read from the checkpoint"
            part = "/".join(path)
            raise unread(what, self.path, self._steps, error, part=part) from error


def read_meta(path: Path) -> dict[str, Any]:
    """What a checkpoint's metadata file says.

    Raises:
      CheckpointError: it cannot be read, or holds no object.
    """
    mend = "take another step of the run, or make or copy the checkpoint again"
    return read_json(path, CheckpointError, do=mend, mend=mend)


def _leaf(tree: Any, path: ParamPath) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _leaf_paths(tree: Any, prefix: ParamPath = ()) -> Iterator[ParamPath]:
    if not isinstance(tree, Mapping):
        yield prefix
        return
    for key, child in tree.items():
        yield from _leaf_paths(child, (*prefix, key))


class TreeReader:
    """A `ParamsReader` over weights in memory (NumPy or JAX, on one process)."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Reads from the nested dict `params`."""
        self._tree = params

    def paths(self) -> list[ParamPath]:
        """Every weight in the tree."""
        return list(_leaf_paths(self._tree))

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight."""
        return tuple(_leaf(self._tree, path).shape)

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype of one weight."""
        return np.dtype(_leaf(self._tree, path).dtype)

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight as a host array."""
        return np.asarray(_leaf(self._tree, path))

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis."""
        return np.asarray(_leaf(self._tree, path)[start:stop])
