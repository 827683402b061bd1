"""Linux calls that Python 3.11 has no function for: namespaces, mounts, privileges, keys."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import time
from typing import Any

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS = 0x00020000, 0x08000000, 0x10000000, 0x20000000
NO_SUID, NO_DEV, NO_EXEC, BIND, RECURSIVE, PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1
_TRIES = 100
_NO_NEW_PRIVILEGES, _CHILD_SUBREAPER = 38, 36
_CAPABILITIES_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Puts this process into new namespaces.

    Raises: OSError.
    """
    _call("unshare", ctypes.c_int(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mounts something in this mount namespace.

    Raises: OSError.
    """
    texts = (source.encode(), target.encode(), kind.encode() or None)
    _call("mount", *texts, ctypes.c_ulong(flags), options.encode() or None)


def new_keyring() -> None:
    """Gives this process an empty session keyring: the caller's would stay its own through exec.

    Where the call is refused (in a container, by a kernel without keyrings), it is to the programs
    as well, and nothing is done.

    Raises: OSError.
    """
    number = _KEYCTL.get(platform.machine())
    if number is None:
        raise OSError(f"the sandbox does not know this kind of machine: {platform.machine()}")
    for attempt in range(_TRIES):
        try:
            _call("syscall", ctypes.c_long(number), ctypes.c_long(_JOIN_SESSION_KEYRING), None)
            return
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS):
                return
            if error.errno != errno.EDQUOT or attempt == _TRIES - 1:
                raise
            time.sleep(0.02)  # keyrings of programs that have ended are still being cleared away


def _write(path: str, text: str) -> None:
    with open(path, "w") as stream:
        stream.write(text)


def enter(user: int = 65534) -> None:
    """New user, mount, process and IPC namespaces; the next process that is forked is its first.

    Raises: OSError.
    """
    names = os.geteuid(), os.getegid()  # not known by these names once in the new one
    unshare(NEW_USER | NEW_MOUNTS | NEW_IPC | NEW_PIDS)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {names[0]} 1")
    _write("/proc/self/gid_map", f"{user} {names[1]} 1")


def make_private(tmp_bytes: int, tmp_files: int) -> None:
    """In the first process of new namespaces: a /tmp and a /proc of its own, no more namespaces.

    Raises: OSError.
    """
    _write("/proc/sys/user/max_user_namespaces", "0")
    options = f"size={tmp_bytes},nr_inodes={tmp_files},mode=0700"
    mount("tmp", "/tmp", "tmpfs", NO_SUID | NO_DEV, options)
    plain = NO_SUID | NO_DEV | NO_EXEC
    try:
        mount("proc", "/proc", "proc", plain, "subset=pid")
    except OSError:  # before Linux 5.8
        mount("proc", "/proc", "proc", plain)


def give_up_privileges() -> None:
    """No capability now, and none by any program that is executed.

    Raises: OSError.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)())
    _prctl(_NO_NEW_PRIVILEGES)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends.

    Raises: OSError.
    """
    _prctl(_CHILD_SUBREAPER)


def _prctl(option: int) -> None:
    zero = ctypes.c_ulong(0)
    _call("prctl", ctypes.c_int(option), ctypes.c_ulong(1), zero, zero, zero)
