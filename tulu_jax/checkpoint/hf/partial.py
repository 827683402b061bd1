"""The working folder of an export, `NAME.partial`: what of a killed export is kept, and renaming.

A file in it says that it is not complete, of which job it is, and which weight files are whole.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from tulu_jax.checkpoint.checksums import file_checksum
from tulu_jax.checkpoint.trouble import how_to_write
from tulu_jax.errors import CheckpointError
from tulu_jax.files import json_or_none, sha256, write_whole

MARKER = "EXPORT_IS_NOT_COMPLETE"
"""File inside a folder that is still being written."""


@dataclasses.dataclass
class Progress:
    """A working folder, and the checksums of the files in it that are whole."""

    folder: Path
    job: str | None
    done: dict[str, str]

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


def check_target(target: Path, overwrite: bool) -> None:
    """Refuses to write over anything but a model folder, and that only when told to.

    Raises:
      CheckpointError: the folder holds something.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    problem, do = None, "choose another"
    if not target.is_dir():
        problem = "output is a file, not a folder"
    elif not overwrite:
        problem, do = "output folder is not empty", "choose another, or add --overwrite"
    elif not (target / "config.json").is_file() or (target / "checkpoints").exists():
        problem = "output folder does not look like an exported model"
    if problem:
        found = sorted(p.name for p in target.iterdir())[:5] if target.is_dir() else None
        raise CheckpointError(problem, got=found, at=target, do=do)


def open_partial(target: Path, job: str | None) -> Progress:
    """The working folder: with the whole files of a killed export of the same job, else empty.

    Args:
      target: the folder it will become.
      job: what is written from what; None: nothing is kept.

    Raises:
      CheckpointError: the folder is not an export's.
    """
    partial = target.with_name(target.name + ".partial")
    digest = None if job is None else sha256(job)
    done: dict[str, str] = {}
    if (partial / MARKER).is_file():
        done = _kept(partial, digest)
        for child in partial.iterdir():
            if child.name not in done:
                shutil.rmtree(child) if child.is_dir() else child.unlink()
    elif partial.exists():
        raise CheckpointError(
            "working folder is taken", at=partial, do="move it away or choose another output"
        )
    partial.mkdir(parents=True, exist_ok=True)
    progress = Progress(partial, digest, done)
    progress.write()
    return progress


def _kept(partial: Path, digest: str | None) -> dict[str, str]:
    """Files of the same job that are there and have the checksums noted."""
    noted = json_or_none(partial / MARKER)
    if not isinstance(noted, dict) or digest is None or noted.get("job") != digest:
        return {}
    return {
        name: checksum
        for name, checksum in noted.get("done", {}).items()
        if (partial / name).is_file() and file_checksum(partial / name) == checksum
    }


def rename(partial: Path, target: Path) -> None:
    """Gives the finished folder its name; the one it replaces goes last."""
    (partial / MARKER).unlink()
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(target.name + ".old")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def unwritable(target: Path, error: OSError) -> CheckpointError:
    """What a user is told when the disk fails."""
    return CheckpointError(
        "output folder cannot be written",
        got=error.strerror or error,
        at=target,
        do=f"{how_to_write(error)}; nothing is left under that name",
    )
