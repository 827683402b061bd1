"""How a sandbox is started: bubblewrap around an interpreter, or, if that is asked for, nothing."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.sandbox.programs import SandboxError

HERE = Path(__file__).parent
_MAIN = (
    "import sys; sys.path.insert(0, {0!r}); from inside.zygote import main;"
    " main({1}, {2!r}); sys.exit()"
)
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
ENVIRONMENT = {
    "LD_LIBRARY_PATH": "/python/lib",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""All that a sandbox is started with: its libraries, and no threads of NumPy's."""
_OWN_LIB = f"{sys.base_prefix}/lib"
INSTALL = "apt-get install bubblewrap, or the same by your system's packages"


@dataclasses.dataclass(frozen=True)
class Isolation:
    """One way to start a sandbox.

    Attributes:
      name: what results say of it.
      bwrap: the program; None for no isolation.
    """

    name: str
    bwrap: str | None

    def start(self, control: int, preload: Sequence[str]) -> subprocess.Popen[bytes]:
        """A sandbox that serves jobs on the inherited socket `control`, in its own session.

        Its environment is empty from the start: the first process of a sandbox shows the one that
        it was started with, whatever it sets later.

        Raises: SandboxError.
        """
        binds = _binds(preload) if self.bwrap else []
        sources = [source for source, _ in binds]
        settings = {
            "isolated": self.bwrap is not None,
            "binds": [*sources, self.bwrap] if self.bwrap else [],
            "command": self._command(binds, control, preload),
            "environment": ENVIRONMENT
            if self.bwrap
            else {**ENVIRONMENT, "LD_LIBRARY_PATH": _OWN_LIB},
        }
        command = [sys.executable, "-I", "-S", "-B", str(HERE / "launch.py"), json.dumps(settings)]
        try:
            return subprocess.Popen(
                command,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[control],
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError("no process could be started", got=error) from error

    def own_path(self) -> str:
        """Where our own modules lie, seen from within."""
        return "/code" if self.bwrap else str(HERE)

    def _command(
        self, binds: list[tuple[str, str]], control: int, preload: Sequence[str]
    ) -> list[str]:
        main = _MAIN.format(self.own_path(), control, list(preload))
        if self.bwrap is None:
            return [_interpreter(), "-I", "-S", "-B", "-c", _unbraced(main)]
        command = [f"{{{len(binds)}}}", "--unshare-all", "--unshare-user", "--uid", "65534"]
        command += ["--gid", "65534", "--hostname", "sandbox", "--new-session"]
        for number, (_, place) in enumerate(binds):
            command += ["--ro-bind", f"{{{number}}}", place]
        for name in _SYSTEM:
            if os.path.islink(name):
                command += ["--symlink", os.readlink(name), name]
            elif os.path.exists(name):
                command += ["--ro-bind", name, name]
        command += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp"]
        command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
        if preload:
            main = "import sys; sys.path.append('/packages'); " + main
        return [*command, "/python/bin/python", "-I", "-S", "-B", "-c", _unbraced(main)]


WITHOUT = Isolation("none (allow_unsafe_execution)", None)


def _unbraced(text: str) -> str:
    if "{" in text or "}" in text:
        raise SandboxError("the sandbox cannot lie at a path with braces", got=HERE)
    return text


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _binds(packages: Sequence[str]) -> list[tuple[str, str]]:
    """(path, place within) of the interpreter, its library, our modules, and of the packages."""
    binds = [
        (_interpreter(), "/python/bin/python"),
        (_OWN_LIB, "/python/lib"),
        (str(HERE / "inside"), "/code/inside"),
    ]
    for name in packages:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise SandboxError(
                "programs need a package that is not installed here",
                got=name,
                do=f"pip install {name}",
            )
        folder = Path(found.submodule_search_locations[0])
        binds += [(str(folder), f"/packages/{name}")]
        libraries = folder.with_name(f"{name}.libs")
        if libraries.is_dir():
            binds += [(str(libraries), f"/packages/{libraries.name}")]
    return binds


@functools.cache
def _version(bwrap: str) -> str:
    try:
        said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError("bubblewrap does not start", got=error, at=bwrap, do=INSTALL) from error
    return said.stdout.strip()


def choose(*, allow_unsafe_execution: bool = False) -> Isolation:
    """Bubblewrap; without any isolation only where it is missing and that is allowed.

    Raises: SandboxError.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is not None:
        name = f"{_version(bwrap)}: namespaces of user, mounts, processes, IPC and network"
        return Isolation(name, bwrap)
    if allow_unsafe_execution:
        return WITHOUT
    raise SandboxError(
        "code that a model wrote cannot be isolated here",
        got="no bwrap (bubblewrap) on the PATH",
        expected="Linux with bubblewrap",
        do=f"{INSTALL}; or allow_unsafe_execution runs it with your own rights",
    )
