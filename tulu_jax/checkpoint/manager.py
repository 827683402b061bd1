"""Checkpoints of a run: saved in the background, found and restored whole or not at all."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from tulu_jax.checkpoint.arrays import (
    COMMIT_FILE,
    CheckpointReader,
    checkpoints_dir,
    complete_steps,
    read_meta,
)
from tulu_jax.checkpoint.closing import close_soon, wait_while_there
from tulu_jax.checkpoint.far_orbax import prepare_orbax
from tulu_jax.checkpoint.fingerprint import tree_fingerprints
from tulu_jax.checkpoint.hf.config import read_config
from tulu_jax.checkpoint.hf.generation import read_generation
from tulu_jax.checkpoint.parts import chunked_by_layer
from tulu_jax.checkpoint.sharded import read_sharded
from tulu_jax.checkpoint.trouble import other_step, unreadable, unwritable
from tulu_jax.errors import CheckpointError
from tulu_jax.files import json_sha256
from tulu_jax.models import ModelConfig
from tulu_jax.models.family import declared_weights
from tulu_jax.parallel.hosts import barrier
from tulu_jax.parallel.rules import Layout
from tulu_jax.places import (
    Address,
    Place,
    StorageError,
    check_writable,
    children,
    move_tree,
    readable,
    remove_tree,
    storage_error,
)

OTHER_RUN = "set another MODEL_DIR"
KEPT, GONE = (f"the last complete checkpoint {is_}" for is_ in ("is untouched", "went with it"))
FAR_FILE_BYTES = 2**27
"""Of a checkpoint in one object of a bucket. Orbax puts 2 GiB into a file, which would be sent in
one piece, held in memory meanwhile, and sent again after a broken connection."""


class Checkpoints:
    """The checkpoints of one run folder, as the training loop uses them.

    A save returns as soon as the state is copied off the devices and goes on in the background; a
    failure in the background is raised by the next call. A save that is killed leaves nothing
    that `latest` would find.
    """

    def __init__(self, run: str | Place, *, keep: int) -> None:
        """Opens (and makes) the run's checkpoint folder, keeping the newest `keep`.

        Raises:
          CheckpointError: the folder cannot be written.
        """
        self.folder = checkpoints_dir(run)
        self._run = run
        self._saving: int | None = None
        self._whole: int | None = None
        self._gone = False  # the bucket
        more = prepare_orbax(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_writable(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error, other=OTHER_RUN, kept=KEPT) from error
        self.set_aside_at_start = self._clear_incomplete(keep)
        """Where half-written checkpoints of earlier processes went."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, **more
        )
        self._manager = ocp.CheckpointManager(
            epath.Path(str(self.folder)),
            options=options,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "meta": ocp.JsonCheckpointHandler(),
            },
        )

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        steps = complete_steps(self._run)
        return steps[-1] if steps else None

    def oldest(self) -> int | None:
        """The oldest complete step, or None."""
        steps = complete_steps(self._run)
        return steps[0] if steps else None

    def set_aside(self, step: int) -> Place:
        """The new path of a damaged step's folder: renamed, so that it no longer counts.

        Orbax would count it, and silently not save any step up to it.
        """
        path = _rename_aside(self.folder, step)
        self._manager.reload()
        return path

    def _clear_incomplete(self, keep: int) -> list[Place]:
        """The new paths of steps that are not whole.

        One that `keep` whole ones outlive was being deleted when the process died: that is ended.
        """
        steps = sorted(int(c.name) for c in children(self.folder) if c.name.isdecimal())
        whole = complete_steps(self._run)
        barrier("looked for half-written checkpoints")
        broken = [step for step in steps if step not in whole]
        expired = [
            step for step in broken
            if sum(each > step for each in whole) >= keep or not self._was_committed(step)
        ]  # fmt: skip
        if jax.process_index() == 0:
            for step in expired:
                remove_tree(self.folder / str(step), first=(COMMIT_FILE,))
        barrier("deleted what was half deleted")
        return [_rename_aside(self.folder, step) for step in broken if step not in expired]

    def _was_committed(self, step: int) -> bool:
        """Whether a step ever was one: in a bucket, that without its commit file never was."""
        folder = self.folder / str(step)
        return not isinstance(folder, Address) or (folder / COMMIT_FILE).is_file()

    def save(self, state: Any, meta: dict[str, Any]) -> None:
        """Starts saving `state` (with a `step` field) and `meta` under its step.

        With `meta` go the fingerprints of all arrays: one pass over the state on the devices.

        Raises:
          CheckpointError: this save, or the one before it, could not be written.
        """
        tree = state._asdict()
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(
                tree,
                save_args=chunked_by_layer(tree),
                ocdbt_target_data_file_size=FAR_FILE_BYTES
                if isinstance(self.folder, Address)
                else None,
            ),
            meta=ocp.args.JsonSave(seal(meta, tree)),
        )
        try:
            saved = self._manager.save(int(state.step), args=args)
        except self._failures as error:
            raise self._unwritable(error) from error
        self._whole, self._saving = self._saving or self._whole, int(state.step)
        if not saved:
            raise CheckpointError(
                "checkpoint was not written",
                got=f"step {int(state.step)}, though later steps are there",
                at=self.folder,
                do="another program may write here: " + OTHER_RUN,
            )

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the state of `step`.

        Raises:
          DamagedCheckpointError: it cannot be read, or is not what was saved.
        """
        folder = self.folder / str(step)
        try:
            meta = read_meta(folder / "meta" / "metadata")
        except CheckpointError as error:
            raise unreadable(folder, error) from error
        if meta.get(SEAL, _digest(meta)) != _digest(meta):
            raise unreadable(folder, ValueError("its metadata is not what was saved"))
        return meta

    def restore(self, step: int, target: Any) -> Any:
        """The state of `step`, each array read straight into the sharding that `target` names.

        Raises:
          DamagedCheckpointError: arrays are missing, damaged, of another shape, or not bit for bit
            what was saved.
        """
        saved = self.meta(step).get(FINGERPRINTS)
        tree = target._asdict()
        args = ocp.args.PyTreeRestore(
            item=tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree)
        )
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=args))
        except Exception as error:  # Orbax raises Exception itself for a missing file.
            raise self._unreadable(step, error) from error
        state = type(target)(**restored["state"])
        _check_bits(saved, state._asdict(), self.folder / str(step))
        if int(state.step) != step:
            raise other_step(self.folder / str(step), int(state.step))
        return state

    def _unreadable(self, step: int, error: Exception) -> CheckpointError:
        """Damaged, unless it lies in a bucket that cannot be reached now."""
        folder = self.folder / str(step)
        if isinstance(folder, Address):
            try:
                (folder / COMMIT_FILE).read_bytes()
            except StorageError as gone:
                return unreadable(folder, gone)
            except FileNotFoundError:
                pass
        return unreadable(folder, error)

    def wait(self) -> None:
        """Returns when the save under way is complete.

        Raises:
          CheckpointError: it could not be written.
        """
        wait = self._manager.wait_until_finished
        try:
            if isinstance(self.folder, Address):
                wait_while_there(wait, lambda: check_writable(self.folder))
            else:
                wait()
        except self._failures as error:
            raise self._unwritable(error) from error
        self._whole = self._saving or self._whole

    def cut_off(self, error: StorageError) -> CheckpointError:
        """The error of a run whose bucket is gone; it names the last step known to be whole."""
        with contextlib.suppress(Exception):  # of a save in the background: it is not whole
            if not self._manager.is_saving_in_progress():
                self.wait()
        return self._unwritable(error)

    @property
    def _failures(self) -> tuple[type[Exception], ...]:
        """What Orbax raises of what cannot be written; of buckets whatever their libraries do."""
        return (Exception,) if isinstance(self.folder, Address) else (OSError, ValueError)

    def _unwritable(self, error: Exception) -> CheckpointError:
        if isinstance(self.folder, Address) and not isinstance(error, StorageError):
            error = storage_error(error, deed="write", at=self.folder)
        self._gone = getattr(error, "errno", None) == errno.ENOENT
        step = "" if self._whole is None else f": step {self._whole}"
        kept = (GONE if self._gone else KEPT) + step
        return unwritable(self.folder, error, other=OTHER_RUN, kept=kept)

    def __enter__(self) -> Checkpoints:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for the save under way and closes; of a bucket that is gone not for long."""
        try:
            close_soon(self._manager.close) if self._gone else self._manager.close()
        except self._failures as error:
            if kind is None:
                raise self._unwritable(error) from error


SEAL, FINGERPRINTS = "sha256", "fingerprints"


def seal(meta: Mapping[str, Any], tree: Any) -> dict[str, Any]:
    """`meta` with what shows later that neither it nor the arrays of `tree` have changed."""
    whole = {**meta, FINGERPRINTS: tree_fingerprints(tree)}
    return {**whole, SEAL: _digest(whole)}


def _digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of metadata in hex, the digest in it left out."""
    rest = {name: value for name, value in meta.items() if name != SEAL}
    return json_sha256(rest)


def _check_bits(saved: Mapping[str, str] | None, tree: Any, path: Place) -> None:
    """Refuses arrays that are not those that were saved; older checkpoints cannot tell."""
    if saved is None:
        return
    found = tree_fingerprints(tree)
    wrong = [name for name in found if found[name] != saved.get(name)]
    if wrong:
        names = ", ".join(wrong[:3]) + (" and more" if len(wrong) > 3 else "")
        raise unreadable(path, ValueError(f"the bits of {names} are not those that were saved"))


def restore_params(
    run: str | Place, config: ModelConfig, layout: Layout, *, dtype: str = "float32"
) -> Any:
    """The weights of a run's newest checkpoint, read straight into their shards; nothing else.

    They are rounded to `dtype` as they are read.

    Raises:
      CheckpointError: no complete checkpoint, or its arrays do not fit the model.
    """
    reader = CheckpointReader(run)
    found = {path: reader.shape(path) for path in reader.paths()}
    wanted = {path: weight.value.shape for path, weight in declared_weights(config).items()}
    if found != wanted:
        wrong = [path for path in {**found, **wanted} if found.get(path) != wanted.get(path)]
        named = [f"{'/'.join(path)} {found.get(path)}" for path in wrong[:5]]
        error = ValueError(f"weights are not those of the model: {named}")
        raise unreadable(reader.path / "state", error)
    params = read_sharded(reader, layout.params(config), dtype=dtype)
    saved = reader.meta.get(FINGERPRINTS)
    if saved and all(dtype == saved["/".join(("params", *path))].split(":")[0] for path in found):
        _check_bits(saved, {"params": params}, reader.path / "state")
    return params


def refuse_adapters(reader: CheckpointReader) -> None:
    """Refuses to take for whole weights those of a run that trained adapters only.

    Raises:
      CheckpointError: the checkpoint holds adapters.
    """
    if reader.meta.get("lora") is not None:
        raise CheckpointError(
            "checkpoint holds adapters, not a model's weights",
            at=reader.path,
            expected="whole weights",
            do="merge them first: tulu export --merge",
        )


def refuse_imported(run: str | Place) -> None:
    """Refuses to train in the folder of a model that was imported or put together, not trained.

    A folder without a readable checkpoint passes: it is for `Checkpoints` to say what is wrong.

    Raises:
      CheckpointError: the newest checkpoint is of no training run.
    """
    try:
        reader = CheckpointReader(run)
    except CheckpointError:
        return
    if "stores" not in reader.meta:
        made = (reader.meta.get("source") or {}).get("format", "another tool")
        raise CheckpointError(
            "MODEL_DIR is the folder of an imported model, which no run can go on from",
            got=f"a checkpoint made from {made}, without data or optimizer",
            at=reader.path,
            expected="a new folder, or that of the run that is to go on",
            do=f"set INITIAL_CHECKPOINT_PATH={run} and another MODEL_DIR",
        )


def saved_generation(path: str | Place) -> dict[str, Any]:
    """The fields of `generation_config.json` that go with a run or a Hugging Face folder.

    Raises:
      CheckpointError: no complete checkpoint, or no model that can be read.
    """
    for step in reversed(complete_steps(path)):  # the newest that can be read: others may be broken
        with contextlib.suppress(CheckpointError):
            meta = read_meta(checkpoints_dir(path) / str(step) / "meta" / "metadata")
            return dict(meta.get("generation") or {})
    if is_run(path):
        return {}
    folder = readable(path)
    return read_generation(folder, read_config(folder))


def is_run(path: str | Place) -> bool:
    """Whether `path` is a run folder (it has checkpoints), not a Hugging Face one."""
    return checkpoints_dir(path).is_dir()


def _rename_aside(folder: Place, step: int) -> Place:
    taken = {child.name for child in children(folder)}
    names = (f"damaged-{step}{more}" for more in ("", *(f"-{n}" for n in range(2, 1000))))
    path = folder / next(name for name in names if name not in taken)
    barrier(f"set aside {path.name}")
    if jax.process_index() == 0:
        old = folder / str(step)
        if isinstance(old, Address) and isinstance(path, Address):
            move_tree(old, path, first=(COMMIT_FILE,))
        else:
            Path(str(old)).rename(str(path))
    barrier(f"have set aside {path.name}")
    return path
