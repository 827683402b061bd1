"""What a program could reach, tried from where it would run."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from . import namespaces


def prepare(job: dict[str, Any], own: list[int]) -> Callable[[], None]:
    """A function that sends the list of what was reached that must not be, in words."""
    return functools.partial(_run, job, own[0])


def _run(job: dict[str, Any], verdict: int) -> None:
    reached = [what for what, attempt in _attempts(job) if _succeeds(attempt)]
    os.write(verdict, json.dumps({"nonce": job["nonce"], "reached": reached}).encode() + b"\n")


def _succeeds(attempt: Any) -> bool:
    with contextlib.suppress(OSError):
        return attempt()
    return False


def _attempts(job: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("a file of the caller", lambda: os.path.exists(job["file"])),
        ("the caller's environment", lambda: not _names() <= set(job["environment"])),
        ("other processes", lambda: len(_processes()) > 2),
        ("the network", lambda: _connects(job["port"])),
        ("a nested user namespace", lambda: _returns(namespaces.unshare, namespaces.NEW_USER)),
        ("the settings of the kernel", lambda: _opens("/proc/sys/kernel/core_pattern")),
        ("the read-only system", lambda: any(map(_writes, ("/", "/usr/lib", "/dev", sys.prefix)))),
        ("root's rights", lambda: os.geteuid() == 0 or _capabilities() != 0),
    ]


def _returns(function: Any, *arguments: Any) -> bool:
    function(*arguments)
    return True


def _processes() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _names() -> set[str]:
    """The names in the environments of all processes that are seen, as they were started with."""
    found = "\0".join(os.environ)
    for process in _processes():
        with contextlib.suppress(OSError), open(f"/proc/{process}/environ", "rb") as stream:
            found += "\0" + stream.read().decode(errors="replace")
    return {line.partition("=")[0] for line in found.split("\0") if line}


def _connects(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def _opens(path: str) -> bool:
    os.close(os.open(path, os.O_WRONLY))
    return True


def _writes(folder: str) -> bool:
    path = os.path.join(folder, "written-by-the-probe")
    with contextlib.suppress(OSError), open(path, "x"):
        os.unlink(path)
        return True
    return False


def _capabilities() -> int:
    with open("/proc/self/status") as stream:
        line = next(line for line in stream if line.startswith("CapEff"))
    return int(line.split()[1], 16)
