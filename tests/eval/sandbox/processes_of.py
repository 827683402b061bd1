"""The processes that a process has started."""

import contextlib
import os
import time
from pathlib import Path


def now() -> int:
    """The time in which the kernel tells when processes were started."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def descendants(process: int, since: int = 0) -> set[int]:
    """The numbers of its children, theirs, and so on, whichever thread started them.

    Of those that were not started after `since` neither they nor what they start: other tests'
    servers and browsers start processes when they like.
    """
    found: set[int] = set()
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                if _started(child) > since:
                    found |= {int(child), *descendants(int(child), since)}
    return found


def _started(process: str) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])
