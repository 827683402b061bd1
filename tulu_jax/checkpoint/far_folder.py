"""Folders in a bucket that are whole or say that they are not: nothing there can be renamed.

A marker is written first and goes last. It says of which job the folder is and which of its files
are whole: a killed job goes on a file at a time. Large files are streamed to their place, where
they appear when they are whole; small ones are made on this machine and sent at the end,
checksums.json last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tulu_jax.checkpoint.checksums import CHECKSUMS_NAME, file_checksum
from tulu_jax.checkpoint.whole_folder import MARKER, PartialFolder, check_target
from tulu_jax.errors import CheckpointError, TuluError
from tulu_jax.files import json_or_none, sha256
from tulu_jax.places import Address, StorageError, remove_tree, upload, write_file

SPEAKING = (CHECKSUMS_NAME, "config.json")
"""Files by which a folder is taken for a model: of one that is replaced they go first."""


@dataclasses.dataclass
class FarFolder(PartialFolder):
    """A folder of this machine for small files, and where the large ones go."""

    target: Address

    def place_of(self, name: str) -> Address:
        """The address of a large file."""
        return self.target / name

    def write(self) -> None:
        """Writes the marker anew."""
        write_file(self.target / MARKER, json.dumps({"job": self.job, "done": self.done}))

    def num_bytes(self) -> int:
        """Bytes of the files that are whole."""
        return sum((self.target / name).stat().st_size for name in self.done)


@contextlib.contextmanager
def far_folder(target: Address, *, job: str | None, overwrite: bool | None) -> Iterator[FarFolder]:
    """As `whole_folder`, in a bucket. After an error of the storage what is whole stays, too.

    Raises:
      CheckpointError: the folder holds something, or cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="tulu-") as local:
        try:
            if not (target / MARKER).is_file():
                check_target(target, overwrite)
            progress = _open(target, Path(local), None if job is None else sha256(job))
        except OSError as error:
            raise _unwritable(target, error) from error
        try:
            yield progress
            _publish(progress)
        except OSError as error:
            raise _unwritable(target, error) from error
        except TuluError:
            with contextlib.suppress(OSError):
                remove_tree(target)
            raise


def is_filled(target: Address, fill: Callable[[PartialFolder], None]) -> bool:
    """Whether the folder is whole and holds what `fill` writes into an empty one, and no more.

    So of what was killed after its last request.

    Raises:
      StorageError: it cannot be read.
    """
    there = set(target.files())
    if not there or MARKER in there:
        return False
    with tempfile.TemporaryDirectory(prefix="tulu-") as local:
        fill(PartialFolder(Path(local), None, {}))
        made = {path.name: path for path in Path(local).iterdir()}
        return set(made) == there and all(
            file_checksum(made[name]) == file_checksum(target / name) for name in made
        )


def _open(target: Address, local: Path, job: str | None) -> FarFolder:
    """With the whole files of a killed process of the same job, else empty."""
    noted = json_or_none(target / MARKER) or {}
    there = target.files()
    done = dict(noted.get("done", {})) if job is not None and noted.get("job") == job else {}
    done = {name: checksum for name, checksum in done.items() if name in there}
    progress = FarFolder(local, job, done, target)
    progress.write()
    for name in sorted(there, key=lambda name: name not in SPEAKING):
        if name not in done and name != MARKER:
            (target / name).unlink(missing_ok=True)
    return progress


def _publish(progress: FarFolder) -> None:
    """Sends the small files, those last by which the folder is known to be whole."""
    files = sorted(path for path in progress.folder.iterdir() if path.is_file())
    for path in sorted(files, key=lambda path: path.name == CHECKSUMS_NAME):
        upload(path, progress.target / path.name)
    (progress.target / MARKER).unlink(missing_ok=True)


def _unwritable(target: Address, error: OSError) -> CheckpointError:
    if isinstance(error, StorageError):
        got, do = str(error).split(" - ", 1)
    else:
        got, do = error.strerror or str(error), "try again"
    return CheckpointError(
        "output folder cannot be written",
        got=got,
        at=target,
        do=f"{do}; what is whole there stays, and the same command goes on with the rest",
    )
