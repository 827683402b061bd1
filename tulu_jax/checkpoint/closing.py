"""The end of a process whose saves to a bucket that is gone never end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

CLOSE_S = 15.0
"""Seconds that a save gets to end by itself."""
EXIT_S = 2.0
"""Seconds between the end of the program and that of the process."""
STATUS = 2


def close_soon(close: Callable[[], object]) -> None:
    """Calls `close`, and leaves it alone if it takes too long.

    TensorStore 0.1.86 takes the answer that there is no such bucket for that of another writer who
    came first, and writes again, for ever. Its threads would also keep the process from ending: so
    that is ended, with status 2, when the main thread has come to its end.
    """

    def quietly() -> None:
        with contextlib.suppress(Exception):  # that the bucket is gone is told already
            close()

    thread = threading.Thread(target=quietly, name="close", daemon=True)
    thread.start()
    thread.join(CLOSE_S)
    if thread.is_alive():
        threading.Thread(target=_end_process, name="end", daemon=True).start()


def _end_process() -> None:
    threading.main_thread().join()
    time.sleep(EXIT_S)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(STATUS)
