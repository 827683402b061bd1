"""A run folder in a bucket belongs to one run at a time: by an object that its owner renews.

`MODEL_DIR/.owner` says who the owner is. It is written only if nobody else wrote in between, so of
two that come at once one has it. An owner renews it every few seconds; one that no longer does is
gone, and is taken over from. One that was silent and comes back finds the folder taken, and ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tulu_jax.checkpoint.owner import OWNER_FILE, belongs, is_gone, new_record, who
from tulu_jax.errors import ConfigError, TuluError
from tulu_jax.places import Address, Marked, StorageError, read_marked, swap

BEAT_S = 10.0
"""Seconds between an owner's renewals."""
WATCH_S = 40.0
"""Seconds without one after which an owner is gone."""


class Lease:
    """The hold of this process on a run folder; use it as `leased` gives it."""

    def __init__(self, folder: Address, record: dict[str, Any], state: Marked) -> None:
        """Of a folder whose `.owner` this process has just written."""
        self._folder, self._record, self._state = folder, record, state
        self._taken = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Refuses to go on when the folder was taken over, or is gone.

        Raises:
          ConfigError: another run took it while this one was silent.
          StorageError: it was removed, or who has it now cannot be read.
        """
        if not self._taken:
            return
        other = _record(read_marked(self._folder / OWNER_FILE))
        if not other:
            raise self._gone()
        raise ConfigError(
            "run folder was taken over by another run while this one was silent",
            got=who(other),
            at=self._folder,
            do="let that one go on: this one has written nothing since",
        )

    def _gone(self) -> TuluError:
        """The error of a folder in which nobody stands as its owner any more."""
        if self._folder.exists():
            return ConfigError(
                "run folder lost its owner's name while the run went on",
                got=f"no {OWNER_FILE}",
                at=self._folder,
                do="somebody removed it, or another run took the folder and has ended: the same "
                "command goes on from the newest checkpoint there",
            )
        return StorageError(
            "run folder was removed while the run went on",
            code=errno.ENOENT,
            got="nothing",
            at=self._folder,
            do="see whether the bucket is there and who empties it; the same command begins anew, "
            "or goes on from a checkpoint that was brought back",
        )

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            self._record["beat"] += 1
            with contextlib.suppress(StorageError):  # the run itself will say
                place = self._folder / OWNER_FILE
                state = swap(place, self._state, _content(self._record))
                if state is None:  # or it is what an earlier beat wrote whose answer never came
                    state = read_marked(place)
                    if _record(state).get("owner") != self._record["owner"]:
                        self._taken = True
                        return
                self._state = state

    def end(self) -> None:
        """Leaves the folder to whoever comes next."""
        self._stop.set()
        self._thread.join()
        if not self._taken:
            with contextlib.suppress(StorageError):
                swap(self._folder / OWNER_FILE, self._state, None)


@contextlib.contextmanager
def leased(folder: Address, *, say: Callable[[str], None] = print) -> Iterator[Lease]:
    """Holds a run folder for this process.

    Raises:
      ConfigError: another process goes on in the folder.
      StorageError: the bucket cannot be written.
    """
    lease = _take(folder, say)
    try:
        yield lease
    finally:
        lease.end()


def _take(folder: Address, say: Callable[[str], None]) -> Lease:
    place = folder / OWNER_FILE
    found = read_marked(place)
    before = _record(found)
    if before:
        if not is_gone(before):
            found = _watched(place, found, before, folder)
        say(f"Taking over {folder}: {who(before)} is gone and had not ended its run")
    mine = new_record()
    state = swap(place, found, _content(mine))
    if state is None:
        raise belongs(folder, _record(read_marked(place)))
    return Lease(folder, mine, state)


def _watched(place: Address, found: Marked, record: dict[str, Any], folder: Address) -> Marked:
    """The object, when its owner has given no sign of life for long enough.

    Raises:
      ConfigError: the owner lives.
    """
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S / 10))
        now = read_marked(place)
        if now.content is None:
            return now
        if now.mark != found.mark:
            raise belongs(folder, _record(now) or record)
    return found


def _content(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def _record(found: Marked) -> dict[str, Any]:
    """Who stands in the object; nobody where there is none that can be read."""
    try:
        record = json.loads(found.content or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
