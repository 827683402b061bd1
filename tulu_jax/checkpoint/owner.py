"""A run folder belongs to one run at a time.

The owner holds a lock on `MODEL_DIR/.owner` that ends with the process, however that ends. What
stands in the file says who it is. Where a file system does not share locks between hosts (some
NFS) or has none, the file itself tells: the owner writes a growing number into it, and one that
no longer grows is of an owner that is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tulu_jax.errors import ConfigError
from tulu_jax.places import Place
from tulu_jax.processes import try_lock

OWNER_FILE = ".owner"
BEAT_S = 1.5
"""Seconds between an owner's signs of life."""
WATCH_S = 6.0
"""Seconds without one after which an owner that no lock speaks for is gone."""
_RECORD_BYTES = 512


@contextlib.contextmanager
def owned(folder: Path, *, say: Callable[[str], None] = print) -> Iterator[None]:
    """Holds the run folder for this process; makes it if need be.

    An owner that was killed is taken over from, which is said.

    Raises:
      ConfigError: another process goes on in the folder; or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / OWNER_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable_run(folder, error) from error
    try:
        mine = _take(descriptor, folder, say)
        stop = threading.Event()
        beats = threading.Thread(target=_beat, args=(descriptor, mine, stop), daemon=True)
        beats.start()
        try:
            yield
        finally:
            stop.set()
            beats.join()
            with contextlib.suppress(OSError):  # a full disk: the lock ends all the same
                _write(descriptor, {})
    finally:
        os.close(descriptor)


def unwritable_run(folder: Path, error: OSError) -> ConfigError:
    """The error of a run folder in which nothing can be written."""
    return ConfigError(
        "run folder cannot be written", got=error, at=folder, do="set another MODEL_DIR"
    )


def _take(descriptor: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Writes this process into the file as its owner, once nobody else is; what it wrote."""
    locks = _lock(descriptor, folder)
    before = _read(descriptor)
    if before:
        here = before.get("machine") == _machine()
        if not (locks and here) and _lives(descriptor, before):
            raise belongs(folder, before)
        say(f"Taking over {folder}: {who(before)} is gone and had not ended its run")
    mine = new_record()
    try:
        _write(descriptor, mine)
    except OSError as error:
        raise unwritable_run(folder, error) from error
    if not locks:  # of two that came at once the one that wrote last stays
        time.sleep(BEAT_S)
        found = _read(descriptor)
        if found.get("owner") != mine["owner"]:
            raise belongs(folder, found)
    return mine


def new_record() -> dict[str, Any]:
    """What this process writes of itself as an owner."""
    return {
        "owner": uuid.uuid4().hex,
        "process": os.getpid(),
        "host": socket.gethostname(),
        "machine": _machine(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "beat": 0,
    }


def _lock(descriptor: int, folder: Path) -> bool:
    """Whether the lock is this process's now; false where the file system has no locks.

    Between an owner's taking the lock and its writing who it is, and between its wiping that and
    its letting go, the file names nobody, or one that was killed before: such a moment is waited
    for, so that a refusal names the owner and a folder that is being left can be had.
    """
    end = time.monotonic() + WATCH_S
    while True:
        try:
            locked = try_lock(descriptor)
        except OSError as error:
            raise unwritable_run(folder, error) from error
        if locked is not False:
            return locked is not None
        record = _read(descriptor)
        if not is_gone(record) or time.monotonic() > end:
            raise belongs(folder, record)
        time.sleep(0.02)


def is_gone(record: dict[str, Any]) -> bool:
    """Whether the record names nobody, or a process of this machine that is no more."""
    if not record:
        return True
    if record.get("machine") != _machine():
        return False
    try:
        os.kill(int(record["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, TypeError, ValueError):  # not ours to signal, or cut off
        return False
    return False


def _lives(descriptor: int, record: dict[str, Any]) -> bool:
    """Whether the owner gives a sign of life while it is watched."""
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(0.2)
        found = _read(descriptor)
        if found != record:
            return bool(found)  # it went on, or ended its run just now
    return False


def _beat(descriptor: int, record: dict[str, Any], stop: threading.Event) -> None:
    count = 0
    while not stop.wait(BEAT_S):
        count += 1
        with contextlib.suppress(OSError):  # a disk that is full: the run itself will say
            _write(descriptor, {**record, "beat": count})


def _write(descriptor: int, record: dict[str, Any]) -> None:
    """One write of one length, so that a reader sees a whole record or none."""
    os.pwrite(descriptor, json.dumps(record).encode().ljust(_RECORD_BYTES), 0)


def _read(descriptor: int) -> dict[str, Any]:
    """Who stands in the file; nobody where it is empty, or was cut off by a crash."""
    try:
        record = json.loads(os.pread(descriptor, _RECORD_BYTES, 0) or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _machine() -> str:
    """What differs between machines, containers' hosts and boots of one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}"


def who(record: dict[str, Any]) -> str:
    """The owner in words."""
    return (
        f"process {record.get('process', 'unknown')} on {record.get('host', 'a host unknown')}, "
        f"started {record.get('since', 'at a time unknown')}"
    )


def belongs(folder: Place, record: dict[str, Any]) -> ConfigError:
    """The error of a folder that another run goes on in."""
    return ConfigError(
        "run folder belongs to another run that is going on",
        got=who(record),
        at=folder,
        expected="one run a folder",
        do="set another MODEL_DIR, or end that process first: the same command then resumes",
    )
