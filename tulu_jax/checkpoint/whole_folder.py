"""Folders that are whole or not there: written as `NAME.partial` and renamed at the end.

A marker in it says that it is not complete, of which job it is, and which of its files are whole:
what a killed process leaves is cleared, or of the same job, kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tulu_jax.checkpoint.checksums import file_checksum
from tulu_jax.checkpoint.trouble import how_to_write
from tulu_jax.errors import CheckpointError
from tulu_jax.files import json_or_none, sha256, write_whole
from tulu_jax.places import Address, Place, as_place, children

MARKER = "NOT_COMPLETE"
"""File inside a folder that is still being written."""


@dataclasses.dataclass
class PartialFolder:
    """A working folder, and the checksums of the files in it that are whole."""

    folder: Path
    job: str | None
    done: dict[str, str]

    def place_of(self, name: str) -> Place:
        """Where a large file is to be written."""
        return self.folder / name

    def finish(self, name: str, checksum: str) -> None:
        """Notes that a file is whole."""
        self.done[name] = checksum
        self.write()

    def write(self) -> None:
        """Writes the marker anew."""
        write_whole(self.folder / MARKER, json.dumps({"job": self.job, "done": self.done}))

    def num_bytes(self) -> int:
        """Bytes of the files that are whole."""
        return sum((self.folder / name).stat().st_size for name in self.done)


@contextlib.contextmanager
def whole_folder(
    path: str | Place, *, job: str | None = None, overwrite: bool | None = None
) -> Iterator[PartialFolder]:
    """Inside, the working folder to fill; after it, the folder has its name.

    An error removes what was written. Of a killed process the next attempt clears it; with the
    same `job` it keeps the files that are whole.

    Args:
      path: the folder.
      job: what is written from what; None: nothing is kept.
      overwrite: replace a model folder that is there; None where that cannot be asked for.

    Raises:
      CheckpointError: the folder holds something, or cannot be written.
    """
    target = as_place(path).absolute()
    if isinstance(target, Address):
        from tulu_jax.checkpoint.far_folder import far_folder

        with far_folder(target, job=job, overwrite=overwrite) as progress:
            yield progress
        return
    check_target(target, overwrite)
    partial = target.with_name(target.name + ".partial")
    try:
        progress = _open(partial, None if job is None else sha256(job))
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        yield progress
        _rename(partial, target)
    except BaseException as error:
        if job is None or isinstance(error, Exception):
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise _unwritable(target, error) from error
        raise


def check_target(target: Place, overwrite: bool | None) -> None:
    """Refuses to write over anything but a model folder, and that only when told to.

    Raises:
      CheckpointError: the folder holds something.
    """
    if not target.exists() or (target.is_dir() and not children(target)):
        return
    problem, do = None, "choose another"
    if not target.is_dir():
        problem = "output is a file, not a folder"
    elif not overwrite:
        problem = "output folder is not empty"
        do += ", or add --overwrite" if overwrite is False else ""
    elif not (target / "config.json").is_file() or (target / "checkpoints").exists():
        problem = "output folder does not look like an exported model"
    if problem:
        found = [p.name for p in children(target)][:5] if target.is_dir() else None
        raise CheckpointError(problem, got=found, at=target, do=do)


def _open(partial: Path, job: str | None) -> PartialFolder:
    """The working folder: with the whole files of a killed process of the same job, else empty."""
    done: dict[str, str] = {}
    if (partial / MARKER).is_file():
        done = _kept(partial, job)
        for child in partial.iterdir():
            if child.name not in done:
                shutil.rmtree(child) if child.is_dir() else child.unlink()
    elif partial.exists():
        raise CheckpointError(
            "working folder is taken", at=partial, do="move it away or choose another output"
        )
    partial.mkdir(parents=True, exist_ok=True)
    progress = PartialFolder(partial, job, done)
    progress.write()
    return progress


def _kept(partial: Path, job: str | None) -> dict[str, str]:
    """Files of the same job that are there and have the checksums noted."""
    noted = json_or_none(partial / MARKER)
    if not isinstance(noted, dict) or job is None or noted.get("job") != job:
        return {}
    return {
        name: checksum
        for name, checksum in noted.get("done", {}).items()
        if (partial / name).is_file() and file_checksum(partial / name) == checksum
    }


def _rename(partial: Path, target: Path) -> None:
    """Gives the finished folder its name; the one it replaces goes last."""
    (partial / MARKER).unlink()
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(target.name + ".old")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old)


def _unwritable(target: Path, error: OSError) -> CheckpointError:
    """What a user is told when the disk fails."""
    return CheckpointError(
        "output folder cannot be written",
        got=error.strerror or error,
        at=target,
        do=f"{how_to_write(error)}; nothing is left under that name",
    )
