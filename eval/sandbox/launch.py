"""The process between the caller and the sandbox: it gives up root, and becomes bubblewrap.

As root it binds what the sandbox is to see where any user may find it (an interpreter may lie in
a folder of root's), within a mount namespace of its own; then it becomes nobody. Bubblewrap that
root starts would leave its sandbox root's rights over files and /proc, and no limit on processes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from inside import namespaces

NOBODY = 65534


def main(settings: dict[str, Any]) -> None:
    """Replaces this process by the command; `{0}`, `{1}` ... in it are where the binds are seen."""
    namespaces.new_keyring()
    paths = settings["binds"]
    if settings["isolated"] and _is_root():
        paths = _bind_for_all(paths)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    command = [part.format(*paths) if "{" in part else part for part in settings["command"]]
    os.execve(command[0], command, settings["environment"])


def _is_root() -> bool:
    """Whether this is root; one that a user namespace alone calls so is a plain user already."""
    with open("/proc/self/uid_map") as stream:
        called, real, count = stream.readline().split()
    return os.geteuid() == 0 and not (count == "1" and called == "0" and real != "0")


def _bind_for_all(paths: list[str]) -> list[str]:
    """The same files and folders below a /tmp that is this process's own, open to every user."""
    os.umask(0o022)
    namespaces.unshare(namespaces.NEW_MOUNTS)
    namespaces.mount("none", "/", flags=namespaces.RECURSIVE | namespaces.PRIVATE)
    sources = [os.open(path, os.O_PATH) for path in paths]
    namespaces.mount("tmp", "/tmp", "tmpfs", namespaces.NO_SUID | namespaces.NO_DEV, "mode=0755")
    places = []
    for number, source in enumerate(sources):
        place = f"/tmp/{number}"
        if os.path.isdir(f"/proc/self/fd/{source}"):
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT, 0o644))
        namespaces.mount(f"/proc/self/fd/{source}", place, flags=namespaces.BIND)
        os.close(source)
        places.append(place)
    return places


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
