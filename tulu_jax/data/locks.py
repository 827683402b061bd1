"""One process at a time makes the stores of a task."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tulu_jax.data.store_format import unwritable
from tulu_jax.processes import try_lock


@contextlib.contextmanager
def locked(folders: Iterable[Path]) -> Iterator[None]:
    """Holds the locks of these folders, waiting for processes that hold one.

    The lock of `data/task` is the file `data/.locks/task`; it ends with the process, however that
    ends. Where a file system knows no locks nothing is waited for: two processes then make the
    same store twice, and the first stays.

    Raises: DataError when the folder of locks cannot be written.
    """
    held = []
    try:
        for folder in sorted(set(folders)):
            held.append(_acquire(folder))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


@contextlib.contextmanager
def locked_if_free(folder: Path) -> Iterator[bool]:
    """Holds the folder's lock if nobody else does; tells whether it could be had."""
    with contextlib.ExitStack() as stack:
        held = False
        with contextlib.suppress(OSError):  # nothing can be written here
            descriptor = _open(folder)
            stack.callback(os.close, descriptor)
            held = bool(try_lock(descriptor))
        yield held


def _open(folder: Path) -> int:
    path = folder.parent / ".locks" / folder.name
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _acquire(folder: Path) -> int:
    try:
        descriptor = _open(folder)
        if try_lock(descriptor) is False:
            print(f"waiting for another process that prepares {folder.name}", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise unwritable(folder, error) from error
    return descriptor
