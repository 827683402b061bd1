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
import logging
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import type_handlers

from tulu_jax.checkpoint.far_orbax import prepare_orbax
from tulu_jax.checkpoint.lazy import LazyArray
from tulu_jax.checkpoint.owner import OWNER_FILE, owned
from tulu_jax.checkpoint.parts import LazyHandler, PartReader, uses_ocdbt
from tulu_jax.checkpoint.reader import Index, ParamPath, ParamsReader, leaves_of
from tulu_jax.checkpoint.trouble import no_checkpoint, other_step, unread, unwritable
from tulu_jax.errors import CheckpointError, ConfigError, TuluError
from tulu_jax.files import read_json, sha256, user_path
from tulu_jax.models import ModelConfig, config_from_dict
from tulu_jax.places import (
    Address,
    Place,
    StorageError,
    check_writable,
    children,
    is_address,
    readable,
    remove_tree,
)

logging.getLogger("absl").setLevel(logging.CRITICAL)  # what fails is told by our own errors

COMMIT_FILE = "commit_success.txt"
"""In a bucket Orbax writes a step under its name, and this into it last."""

T = TypeVar("T")


def checkpoints_dir(run: str | Place) -> Place:
    """The folder of a run that holds one folder a step.

    Without `..`, which TensorStore takes for no path.
    """
    return run_place(run) / "checkpoints"


def run_place(run: str | Place) -> Place:
    """The run folder that its user means; a model of the Hub lies in its cache."""
    if is_address(run):
        return readable(run)
    return user_path(run, name="run folder")  # type: ignore[arg-type]


def save_params(
    run: str | Place,
    params: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    before_commit: Callable[[], Any] | None = None,
) -> Place:
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
    run = run_place(run)
    # Without the file nobody is there, and nothing is to be left.
    is_owned = isinstance(run, Path) and (run / OWNER_FILE).exists()
    with owned(Path(str(run))) if is_owned else contextlib.nullcontext():
        return _save_params(run, params, meta, before_commit)


def _check_free(run: str | Place, folder: Place) -> None:
    """Nothing that is there may be taken for what is written now.

    Raises:
      CheckpointError: there are checkpoints, or a Hugging Face model.
      StorageError: a bucket cannot be written.
    """
    steps = [path.name for path in children(folder)]
    if isinstance(run, Address) and not complete_steps(run):  # of an import that was killed
        check_writable(run)
        _clear(folder)
        steps = []
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


def _save_params(
    run: str | Place,
    params: Mapping[str, Any],
    meta: Mapping[str, Any],
    before_commit: Callable[[], Any] | None,
) -> Place:
    folder = checkpoints_dir(run)
    _check_free(run, folder)

    # ---- plain files, a part each: import and export then read and write at the disk's speed ----
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
        enable_async_checkpointing=False, cleanup_tmp_directories=True, **prepare_orbax(folder)
    )
    handlers = {"state": handler, "meta": ocp.JsonCheckpointHandler()}

    # ---- the step has its name when all of it is written: Orbax renames it at the end -----------
    try:
        with ocp.CheckpointManager(
            epath.Path(str(folder)), options=options, item_handlers=handlers
        ) as manager:
            manager.save(
                0,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(tree),
                    meta=ocp.args.JsonSave(dict(meta)),
                ),
            )
    except (OSError, ValueError) as error:  # tensorstore tells of a full disk by ValueError
        with contextlib.suppress(StorageError):  # of a bucket that is gone: it has no commit file
            _clear(folder)
        if isinstance(error, TuluError):
            raise
        kept = "nothing is left that looks complete"
        raise unwritable(folder, error, other="choose another --model_dir", kept=kept) from error
    return folder / "0"


def _clear(folder: Place) -> None:
    """Removes what a failed save left, and the run folder if nothing else is in it."""
    if isinstance(folder, Address):
        remove_tree(folder / "0", first=(COMMIT_FILE,))
        return
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


def complete_steps(run: str | Place) -> list[int]:
    """Steps of a run whose checkpoints are whole, in rising order.

    A save that was killed leaves a folder with a temporary name, or one without its metadata;
    neither counts.
    """
    steps = [child for child in children(checkpoints_dir(run)) if child.name.isdecimal()]
    return sorted(int(step.name) for step in steps if _is_whole(step))


def _is_whole(step: Place) -> bool:
    needed = ["_CHECKPOINT_METADATA", "state/_METADATA", "meta/metadata"]
    if isinstance(step, Address):  # where Orbax renames nothing
        needed.insert(0, COMMIT_FILE)
    if not all((step / name).is_file() for name in needed):
        return False
    return (step / "state/manifest.ocdbt").is_file() or not uses_ocdbt(step / "state")


class CheckpointReader(ParamsReader):
    """The weights in `state/params` of one checkpoint of a run."""

    def __init__(self, run: str | Place, step: int | None = None) -> None:
        """Opens the newest whole checkpoint, or that of `step`.

        Raises:
          CheckpointError: no whole checkpoint, not that one, or one that is of another step.
        """
        self._steps = complete_steps(run)
        folder = checkpoints_dir(run)
        if not self._steps or (step is not None and step not in self._steps):
            raise no_checkpoint(folder, step, self._steps)
        self.step = self._steps[-1] if step is None else step
        self.path = folder / str(self.step)
        prepare_orbax(self.path)
        self.meta: dict[str, Any] = read_meta(self.path / "meta" / "metadata")
        tree = self._metadata()
        self._leaves = leaves_of(tree["params"])
        self._parts = PartReader(self.path / "state")
        if (saved := self._saved_step(tree)) != self.step:
            raise other_step(self.path, saved)

    @cached_property
    def config(self) -> ModelConfig:
        """The model that the checkpoint's metadata names.

        Raises:
          CheckpointError: the metadata names no model, or fields there are not.
        """
        try:
            return config_from_dict(self.meta["model"])
        except (KeyError, TypeError, ConfigError) as error:
            raise CheckpointError(
                "checkpoint does not say which model it is of", got=error, at=self.path / "meta"
            ) from error

    @property
    def far(self) -> bool:
        """Whether the checkpoint lies in a bucket."""
        return is_address(self.path)

    @property
    def identity(self) -> str:
        """SHA-256 in hex of what names this very checkpoint: another save has another."""
        names = ("_CHECKPOINT_METADATA", "state/_METADATA", "meta/metadata")
        return sha256(b"".join((self.path / name).read_bytes() for name in names))

    def _saved_step(self, tree: Mapping[str, Any]) -> int:
        """The step that the checkpoint itself says it is of; one without a word of it is right."""
        if "step" not in tree:
            return int(self.meta.get("step", self.step))
        try:
            return int(self._parts.read_slice(("step",), ()))
        except (OSError, ValueError, KeyError) as error:
            raise unread("checkpoint is corrupt", self.path, self._steps, error) from error

    def _metadata(self) -> dict[str, Any]:
        """What is stored, by name."""
        try:
            state = epath.Path(str(self.path / "state"))
            tree = ocp.PyTreeCheckpointHandler().metadata(state).tree
            leaves_of(tree["params"])
            return tree
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise unread("checkpoint is corrupt", self.path, self._steps, error) from error

    def paths(self) -> list[ParamPath]:
        """Every weight in the checkpoint."""
        return list(self._leaves)

    def shape(self, path: ParamPath) -> tuple[int, ...]:
        """The shape of one weight."""
        return tuple(self._leaves[path].shape)

    def dtype(self, path: ParamPath) -> np.dtype:
        """The dtype one weight is stored in."""
        return np.dtype(self._leaves[path].dtype)

    def rows_at_once(self, path: ParamPath) -> int:
        """Rows of the first axis that one chunk on disk holds."""
        return self._reading(path, self._parts.rows_at_once)

    def read(self, path: ParamPath) -> np.ndarray:
        """One weight."""
        return self.read_part(path, 0, (*self.shape(path), 1)[0])

    def read_part(self, path: ParamPath, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of one weight's first axis; nothing else is read."""
        return self._reading(path, self._parts.read, start, stop)

    def read_slice(self, path: ParamPath, index: Index) -> np.ndarray:
        """A part of one weight, in memory of its own."""
        return self._reading(path, self._parts.read_slice, index)

    def _reading(self, path: ParamPath, read: Callable[..., T], *arguments: Any) -> T:
        try:
            return read(("params", *path), *arguments)
        except (OSError, ValueError, KeyError) as error:
            what, part = "weight cannot be read from the checkpoint", "/".join(path)
            raise unread(what, self.path, self._steps, error, part=part) from error


def read_meta(path: Place) -> dict[str, Any]:
    """What a checkpoint's metadata file says.

    Raises:
      CheckpointError: it cannot be read, or holds no object.
    """
    mend = "take another step of the run, or make or copy the checkpoint again"
    return read_json(path, CheckpointError, do=mend, mend=mend)
