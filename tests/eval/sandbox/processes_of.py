"""The processes that a process has started."""

import contextlib
from pathlib import Path


def descendants(process):
    """The numbers of its children, theirs, and so on, whichever thread started them."""
    found = set()
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found |= {int(child), *descendants(child)}
    return found
