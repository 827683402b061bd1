"""The run folder of a run whose MODEL_DIR is in a bucket: on this machine, and kept there too.

Checkpoints go straight to the bucket. All else of a run (metrics, TensorBoard, plots, settings,
goodput) is appended to and rewritten, which objects cannot be: it lies in a folder of this machine.
Process 0 sends what has changed, now and then in the background and always before a checkpoint, and
fetches it when a run goes on, wherever that is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from tulu_jax.checkpoint.arrays import run_place
from tulu_jax.checkpoint.far_orbax import prepare_orbax
from tulu_jax.checkpoint.lease import Lease, leased
from tulu_jax.checkpoint.owner import OWNER_FILE, owned
from tulu_jax.files import sha256
from tulu_jax.parallel.hosts import barrier
from tulu_jax.places import Address, check_writable, children, upload

PERIOD_S = 60.0
"""At least so long between two sendings in the background."""
OF_THE_BUCKET = ("checkpoints", OWNER_FILE)
"""What is written there directly."""
OF_ONE_HOST = ("heartbeats",)
"""What is not sent."""
THREADS = 16


def run_folder(model_dir: str) -> Path:
    """The folder of this machine in which a run keeps what is no checkpoint.

    MODEL_DIR itself; of one in a bucket a folder of this process below `$TULU_SCRATCH_DIR`, by
    default ~/.cache/tulu_jax_runs.
    """
    place = run_place(model_dir)
    if not isinstance(place, Address):
        return place
    named = os.environ.get("TULU_SCRATCH_DIR")
    scratch = Path(named) if named else Path.home() / ".cache" / "tulu_jax_runs"
    return scratch / f"{place.name}-{sha256(str(place))[:12]}" / f"process-{jax.process_index()}"


class Mirror:
    """What of a run is kept in a bucket besides checkpoints; of a local run nothing is done."""

    def __init__(self, model_dir: str, lease: Lease | None = None) -> None:
        """Sends nothing yet."""
        place = run_place(model_dir)
        main = jax.process_index() == 0
        self._place = place if isinstance(place, Address) and main else None
        self._far = isinstance(place, Address)
        self._folder, self._lease = run_folder(model_dir), lease
        self._sent: dict[str, tuple[int, int]] = {}
        self._at = time.monotonic()
        self._lock = threading.Lock()
        self._background: threading.Thread | None = None

    def fetch(self) -> None:
        """Makes the folder of this machine what lies in the bucket: of a run before, or empty.

        Raises: StorageError.
        """
        if self._place is None:
            return
        place = self._place
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        names = [name for name in _own_files(place) if name.split("/")[0] not in OF_THE_BUCKET]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: _write(self._folder / name, place / name), names))
        self._sent = {name: _state(self._folder / name) for name in names}

    def send(self) -> None:
        """Sends what has changed; when it returns that is in the bucket.

        Every process calls it: for a network that is slow they wait here, and not in a collective,
        some of which give up after half a minute.

        Raises:
          ConfigError: the run folder was taken over by another run.
          GuardError: another process has not come.
          StorageError: the bucket cannot be written.
        """
        self._send_mine()
        if self._far:
            barrier("the run folder is sent")

    def _send_mine(self) -> None:
        if self._place is None:
            return
        if self._lease is not None:
            self._lease.check()
        with self._lock:
            self._send(self._place)

    def send_soon(self) -> None:
        """Sends in the background what has changed, if that was not done just now.

        What goes wrong is left to `send`, but that the folder is no longer this run's.

        Raises: ConfigError: it was taken over; StorageError: it was removed.
        """
        if self._lease is not None:
            self._lease.check()
        busy = self._background is not None and self._background.is_alive()
        if self._place is None or busy or time.monotonic() - self._at < PERIOD_S:
            return
        self._background = threading.Thread(target=self._try_to_send, daemon=True)
        self._background.start()

    def _try_to_send(self) -> None:
        with contextlib.suppress(Exception):
            self._send_mine()

    def _send(self, place: Address) -> None:
        files = [path for path in sorted(self._folder.rglob("*")) if path.is_file()]
        found = {str(path.relative_to(self._folder)): _state(path) for path in files}
        changed = [
            name for name, state in found.items()
            if state != self._sent.get(name) and name.split("/")[0] not in OF_ONE_HOST
        ]  # fmt: skip
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: upload(self._folder / name, place / name), changed))
        self._sent |= {name: found[name] for name in changed}
        self._at = time.monotonic()


@contextlib.contextmanager
def held_run(model_dir: str, *, say: Callable[[str], None]) -> Iterator[Mirror]:
    """The run folder, of this run alone, with what lies in the bucket fetched.

    Raises:
      ConfigError: another run goes on in it.
      StorageError: it lies in a bucket that cannot be read or written.
    """
    place = run_place(model_dir)
    if jax.process_index():  # process 0 speaks for all processes of the run
        yield Mirror(model_dir)
    elif isinstance(place, Address):
        prepare_orbax(place)  # not after hours of preparing data: its name
        check_writable(place)
        with leased(place, say=say) as lease:
            mirror = Mirror(model_dir, lease)
            mirror.fetch()
            yield mirror
    else:
        with owned(place, say=say):
            yield Mirror(model_dir)


def _own_files(place: Address) -> list[str]:
    """Names of what lies in a run folder, but for its many checkpoint files."""
    names = list(place.files(deep=False))
    for child in children(place):
        if child.name not in OF_THE_BUCKET and child.name not in names:
            names += [f"{child.name}/{name}" for name in child.files()]
    return names


def _write(target: Path, source: Address) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
