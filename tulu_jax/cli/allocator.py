"""Memory on CPU: in huge pages, and kept from one training step or one weight to the next."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
SETTINGS = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.arena_max=1",  # other arenas cannot grow to a step's work space
        "glibc.malloc.mmap_max=0",
        f"glibc.malloc.trim_threshold={2**40}",
    )
)
"""Huge pages; and no block, however large, goes back to the kernel."""

MALLOPT = {-8: 1, -4: 0, -1: 2**31 - 1}
"""M_ARENA_MAX, M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's mallopt: the same without a restart."""

ACCELERATORS = ("accel0", "vfio/0", "nvidia0", "kfd")
"""Files in /dev where there is a TPU or a GPU, whose memory XLA manages itself."""


def keep_memory() -> None:
    """Starts this process anew with an allocator that keeps its memory, unless it has one already.

    XLA asks for the whole work space of a step (for 58M weights 1.7 GB) and gives it back at the
    end. The kernel then clears it page by page in every step: a fifth of the step in pages of
    4 KiB, and as much as the step itself where a virtual machine hands free pages back to its
    host. glibc reads the settings only when a process starts; processes started later do not
    get them. Does nothing elsewhere than on Linux, with an accelerator, or when GLIBC_TUNABLES
    speaks of malloc already.
    """
    given = os.environ.get(VARIABLE, "")
    if SETTINGS in given:
        rest = given.replace(SETTINGS, "").strip(":")
        os.environ.pop(VARIABLE)
        os.environ.update({VARIABLE: rest} if rest else {})
    elif sys.platform.startswith("linux") and "glibc.malloc" not in given and _trains_on_cpu():
        os.environ[VARIABLE] = ":".join(part for part in (given, SETTINGS) if part)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def reuse_freed_memory() -> None:
    """Lets this process use again what it freed, for blocks of many megabytes too.

    Else each array of a layer's weights is fetched from the kernel anew and given back, and the
    kernel clears it page by page: as long as all the rest of an export. Does nothing where the C
    library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in MALLOPT.items():
            library.mallopt(option, value)


def _trains_on_cpu() -> bool:
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return True
    return not any(Path("/dev", name).exists() for name in ACCELERATORS)
