"""What a user is told when a checkpoint or folder cannot be read or written: by its cause.

Advice follows from the error number, so that nobody is sent to free space on a disk that is not
full, or away from a checkpoint that is whole.
"""

from __future__ import annotations

import errno
import os
from shlex import quote

from tulu_jax.errors import CheckpointError
from tulu_jax.files import advice, disk_error
from tulu_jax.places import Place, children

DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE)
"""Errors of the machine or of its network, not of what is read."""
NETWORK = (
    "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED",
    "retry attempts failed",
)  # fmt: skip
"""What TensorStore calls it when a bucket cannot be reached or may not be read."""
NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that looks complete cannot be read."""


def how_to_write(error: Exception, *, other: str = "choose another folder") -> str:
    """What to do about a folder or file that cannot be written, by the cause.

    >>> how_to_write(OSError(errno.ENOSPC, "No space left on device"))
    'free some space, or choose another folder'
    """
    cause = error if isinstance(error, OSError) and error.errno else disk_error(error)
    return f"{(cause and advice(cause)) or 'try again'}, or {other}"


def unwritable(folder: Place, error: Exception, *, other: str, kept: str) -> CheckpointError:
    """The error of a checkpoint that cannot be written; `kept` says what is as it was."""
    return CheckpointError(
        "checkpoint cannot be written",
        got=getattr(error, "strerror", None) or str(error)[:300],
        at=folder,
        expected="a writable folder with room",
        do=f"{how_to_write(error, other=other)}; {kept}",
    )


def is_passing(error: BaseException) -> bool:
    """Whether what went wrong says nothing about the checkpoint: rights, memory, open files."""
    code = getattr(error, "errno", None)
    said = str(error)
    told = any(os.strerror(each) in said for each in (*DENIED, *PASSING))
    no_memory = isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY)
    no_bucket = any(words in said for words in NETWORK)
    return code in (*DENIED, *PASSING) or told or no_memory or no_bucket


def unreadable(path: Place, error: Exception) -> CheckpointError:
    """The error of a checkpoint that cannot be restored: damaged, unless the error is passing."""
    got = f"{type(error).__name__}: {str(error)[:500]}"
    if is_passing(error):
        return CheckpointError(
            "checkpoint cannot be restored now",
            got=got,
            at=path,
            do="nothing says that it is damaged: see to the rights, the memory or the network, and "
            "try again",
        )
    return DamagedCheckpointError(
        "checkpoint cannot be restored",
        got=got,
        at=path,
        expected="all arrays of this model and optimizer",
        do="it is damaged or of another model: to go on from an older step, move this one's folder "
        "away",
    )


def other_step(path: Place, saved: int) -> DamagedCheckpointError:
    """The error of a checkpoint whose folder is called after another step than it is of."""
    return DamagedCheckpointError(
        "checkpoint is of another step than its folder says",
        got=f"step {saved} in a folder {path.name}",
        at=path,
        expected=f"a folder {saved}, as it was saved",
        do=f"it was copied or renamed by hand: give it the name {saved} again, or move it away",
    )


def no_checkpoint(folder: Place, step: int | None, steps: list[int]) -> CheckpointError:
    """The error of a run that has no complete checkpoint, or not that one; says what is there."""
    what, run, do = "no complete checkpoint", folder.parent, None
    if step is not None and steps:
        do = f"leave --step out, or take one of {', '.join(map(str, steps[-5:]))}"
    elif (run / "config.json").is_file():
        do = f"this is a Hugging Face folder: tulu import --hf {quote(str(run))} makes a run of it"
    elif (run / "adapter_config.json").is_file():
        do = (
            f"this is an adapter of PEFT's: tulu adapter --peft {quote(str(run))} makes a run of it"
        )
    elif run.name.isdecimal() and run.parent.name == "checkpoints":
        do = f"give the run's folder: {run.parent.parent}"
    elif run.name == "checkpoints":
        do = f"give the run's folder: {run.parent}"
    found = [child.name for child in children(folder)] if folder.is_dir() else None
    return CheckpointError(
        what if step is None else f"{what} of {step=}",
        got=f"complete steps {steps}, folders {found}" if run.is_dir() else "no such folder",
        at=folder if run.is_dir() else run,
        expected="a folder checkpoints/STEP that a finished save or `tulu import` made",
        do=do,
    )


def unread(
    what: str, path: Place, steps: list[int], error: Exception, *, part: str = ""
) -> CheckpointError:
    """The error of what a reader of a run's checkpoint cannot give; `steps` are its whole ones."""
    if is_passing(error):
        do = (
            "nothing says that it is damaged: see to the rights, the memory or the network, and "
            "try again"
        )
    elif older := [step for step in steps if step < int(path.name)]:
        do = f"the checkpoint is damaged: use an older one, --step {older[-1]}"
    else:
        do = "the checkpoint is damaged, and there is no older one: make or copy it again"
    return CheckpointError(
        what,
        got=str(error)[:300],
        at=f"{part} in {path}" if part else path,
        do=do,
    )
