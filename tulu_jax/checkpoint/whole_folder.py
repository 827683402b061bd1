"""Folders that are whole or not there: written under another name and renamed at the end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tulu_jax.checkpoint.trouble import how_to_write
from tulu_jax.errors import CheckpointError

MARKER = "NOT_COMPLETE"
"""File inside a folder that is still being written."""


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Inside, an empty folder `NAME.partial` to fill; after it, the folder has its name.

    An error removes what was written. A killed process leaves only `NAME.partial`, with a marker
    in it, which the next attempt clears.

    Raises:
      CheckpointError: the target holds something, or cannot be written.
    """
    target = Path(path).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        if not target.is_dir():
            raise CheckpointError("output is a file, not a folder", at=target, do="choose another")
        found = sorted(child.name for child in target.iterdir())[:5]
        raise CheckpointError(
            "output folder is not empty", got=found, at=target, do="choose another"
        )
    partial = target.with_name(target.name + ".partial")
    try:
        _clear(partial)
        yield partial
        (partial / MARKER).unlink()
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            "output folder cannot be written",
            got=error.strerror or error,
            at=target,
            do=f"{how_to_write(error)}; nothing is left under that name",
        ) from error
    except BaseException as error:
        if not _is_taken(error):
            shutil.rmtree(partial, ignore_errors=True)
        raise


class _TakenError(CheckpointError):
    """The working folder is somebody else's."""


def _is_taken(error: BaseException) -> bool:
    return isinstance(error, _TakenError)


def _clear(partial: Path) -> None:
    if (partial / MARKER).is_file():
        shutil.rmtree(partial)
    elif partial.exists():
        raise _TakenError(
            "working folder is taken", at=partial, do="move it away or choose another output"
        )
    partial.mkdir(parents=True)
    (partial / MARKER).touch()
