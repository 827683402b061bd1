"""Memory in huge pages, for training on CPU."""

from __future__ import annotations

import os
import sys

TUNABLE = "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Starts this process anew with glibc asking for huge pages, unless it does already.

    XLA takes its work space from the allocator and gives it back every step; in pages of 4 KiB the
    kernel then clears hundreds of thousands of them a step (measured on 2 CPU cores: a fifth of
    the step). glibc reads the setting only when a process starts. Does nothing elsewhere than on
    Linux, or where the variable GLIBC_TUNABLES speaks of huge pages already.
    """
    settings = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or TUNABLE in settings:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(part for part in (settings, f"{TUNABLE}=1") if part)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
