"""Waiting for saves to a bucket that may be gone: those never end by themselves.

TensorStore 0.1.86 takes the answer that there is no such bucket for that of another writer who came
first, and writes again, for ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

LOOK_S = 10.0
"""Seconds between two looks at the bucket while a save is waited for."""
CLOSE_S = 15.0
"""Seconds that a save gets to end by itself."""
EXIT_S = 2.0
"""Seconds between the end of the program and that of the process."""
STATUS = 2


def wait_while_there(wait: Callable[[], object], look: Callable[[], object]) -> None:
    """Calls `wait` and raises what it does; what `look` raises meanwhile ends the waiting."""
    failures: list[BaseException] = []

    def waiting() -> None:
        try:
            wait()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=waiting, name="wait", daemon=True)
    thread.start()
    thread.join(LOOK_S)
    while thread.is_alive():
        look()
        thread.join(LOOK_S)
    if failures:
        raise failures[0]


def close_soon(close: Callable[[], object]) -> None:
    """Calls `close`, and leaves it alone if it takes too long.

    The threads of a save would also keep the process from ending: so that is ended, with status 2,
    when the main thread has come to its end.
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
