"""Processes that start in a tenth of a second: forked from one that has imported everything.

The parent (`python forks.py SOCKET`) has touched no JAX backend, so a child may choose devices,
join a cluster and be killed like any fresh process. A test talks to it through `Forks`.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import quick_xla

ROOT = Path(__file__).parent.parent.parent


class Child:
    """A forked run: `run_small.main(arguments)`, its output in a file."""

    def __init__(self, connection: socket.socket, log: Path) -> None:
        """Waits for its process id."""
        self._answers = connection.makefile()
        self._connection = connection
        self.log = log
        self.pid = int(self._answers.readline())
        self.status: int | None = None

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal, if the child still lives."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_for(self, text: str, timeout_s: float = 200) -> bool:
        """Whether the child printed `text` before it ended."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            ended = self.ended(0.002)
            if text in self.output:
                return True
            if ended:
                return False
        raise AssertionError(f"never said {text!r}: {self.output[-3000:]}")

    def ended(self, timeout_s: float) -> bool:
        """Whether the child ended within that time; `status` is then set."""
        if self.status is None and select.select([self._connection], [], [], timeout_s)[0]:
            self.status = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.status is not None

    def result(self, timeout_s: float = 200) -> str:
        """Everything it printed; it must end well and in time."""
        assert self.ended(timeout_s), f"still runs: {self.output[-3000:]}"
        assert self.status == 0, self.output[-3000:]
        return self.output


class Forks:
    """The server, and children from it."""

    def __init__(self, folder: Path) -> None:
        """Starts the server, which takes a few seconds to import everything."""
        self._folder, self._count = folder, 0
        self._path = str(folder / "socket")
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": path,
            "XLA_FLAGS": quick_xla.flags(),
        }
        self._server = subprocess.Popen([sys.executable, __file__, self._path], env=env, cwd=ROOT)
        end = time.monotonic() + 120
        while not os.path.exists(self._path):
            assert self._server.poll() is None and time.monotonic() < end, "no server"
            time.sleep(0.05)

    def start(self, folder: Path, options: dict, *cluster: int, devices: int = 1, **env) -> Child:
        """A run of `run_small` in a process of its own."""
        self._count += 1
        log = self._folder / f"{self._count}.log"
        log.touch()
        env = {
            "XLA_FLAGS": quick_xla.flags(devices),
            **{name: str(value) for name, value in env.items()},
        }
        arguments = [str(folder), json.dumps(options), *map(str, cluster)]
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        job = {"arguments": arguments, "env": env, "log": str(log)}
        connection.sendall(json.dumps(job).encode() + b"\n")
        return Child(connection, log)

    def close(self) -> None:
        """Ends the server."""
        self._server.terminate()
        self._server.wait(120)


def serve(path: str) -> None:
    """Forks a child for every connection, and tells its process id, then its exit status."""
    import gcsfs
    import grain.python
    import jax
    import jaxlib.mlir.dialects.mhlo
    import matplotlib.pyplot
    import orbax.checkpoint
    import tensorboardX
    from jax._src import xla_bridge

    from train import run_small, small
    from tulu_jax.models import config
    from tulu_jax.ops.attention import choice
    from tulu_jax.train import loop, setup

    assert gcsfs and grain and jax and matplotlib and orbax and tensorboardX and loop and setup
    assert jaxlib.mlir.dialects.mhlo
    with (  # Each run says how many weights its model has: half of a child's time.
        mock.patch.object(choice, "platform_of", return_value="cpu"),
        mock.patch.object(config, "platform_of", return_value="cpu"),
    ):
        assert small.MODEL.num_params
    assert not xla_bridge.backends_are_initialized()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen()
    os.rename(path + ".new", path)
    children: dict[int, socket.socket] = {}
    while True:
        if select.select([listener], [], [], 0.005)[0]:
            connection, _ = listener.accept()
            job = json.loads(connection.makefile().readline())
            pid = os.fork()
            if pid == 0:
                listener.close()
                _become(job, run_small.main)
            children[pid] = connection
            connection.sendall(f"{pid}\n".encode())
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with contextlib.suppress(OSError), children.pop(pid) as connection:
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(job: dict, main) -> None:
    """Runs the job in this process and ends it, whatever happens."""
    log = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(job["env"])
    sys.stdout.reconfigure(line_buffering=True)
    status = 1
    try:
        main(job["arguments"])
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        _leave()
        sys.stdout.flush()
        os._exit(status)


def _leave() -> None:
    """What JAX does at the end of a process: the others of its run are not ended by it."""
    import jax

    with contextlib.suppress(Exception):
        jax.distributed.shutdown()


if __name__ == "__main__":
    serve(sys.argv[1])
