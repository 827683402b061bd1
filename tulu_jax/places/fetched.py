"""Copies on this machine of what lies elsewhere and is read whole: tokenizers, stores, models."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tulu_jax.errors import ConfigError
from tulu_jax.files import sha256
from tulu_jax.places.address import Address, Place, as_place
from tulu_jax.places.hub import hub_folder

SMALL_BYTES = 100 * 2**20
"""Larger files of a folder are weights, which are read where they lie."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")
INSIDE = "tokenizer"
"""The folder in which a run keeps its tokenizer."""
KEPT_BYTES = 200 * 10**9
"""Of copies, if `$TULU_FETCHED_BYTES` does not say: those not used for longest go first."""
IN_USE = ".in_use"
THREADS = 16
PIECE_BYTES = 2**24

_held: dict[Path, int] = {}
"""Copies that this process uses, and the open files whose locks say so."""


def fetched_dir() -> Path:
    """Where copies are kept: `$TULU_FETCHED_DIR`, by default ~/.cache/tulu_jax_fetched."""
    named = os.environ.get("TULU_FETCHED_DIR")
    return Path(named) if named else Path.home() / ".cache" / "tulu_jax_fetched"


def readable(place: str | Path | Address) -> Place:
    """The place where a model's files can be read: one of the Hub is downloaded to its cache.

    Raises: StorageError, and as `user_place`.
    """
    place = as_place(place)
    if isinstance(place, Address) and place.scheme == "hf":
        return hub_folder(place)
    return place


def local_folder(place: str | Path | Address, *, weights: bool = False) -> Path:
    """A folder of this machine with the files that lie at `place`; what is local stays there.

    Of an address that is a copy. Which files there are and what is in them names the copy, so it
    is never an old one.

    Args:
      place: the folder.
      weights: copy all of a model; else a tokenizer's files and what else is small.

    Raises: StorageError; ConfigError where nothing lies there.
    """
    place = readable(place)
    if not isinstance(place, Address):
        return place
    every = place.files(deep=False)
    every |= {f"{INSIDE}/{n}": f for n, f in (place / INSIDE).files(deep=False).items()}
    files = {
        name: facts for name, facts in every.items()
        if not name.startswith(".")  # of the owner of a run that goes on
        and (weights or (facts[0] <= SMALL_BYTES and not name.endswith(WEIGHTS)))
    }  # fmt: skip
    if not files and not place.is_dir():
        raise ConfigError(
            "nothing lies there", at=place, expected="a folder with files", do="mend the address"
        )
    return fetched(place, files)


def fetched(source: Address, files: Mapping[str, tuple[int, str]]) -> Path:
    """A copy of these files (name -> size and mark, as `Address.files` gives) of a folder.

    Raises: StorageError; OSError of this machine's disk.
    """
    key = sha256(json.dumps([str(source), sorted(files.items())]))[:24]
    folder = fetched_dir() / key / source.name
    hold_copy(folder.parent)
    if folder.is_dir():
        return folder
    make_room(folder.parent, sum(size for size, _ in files.values()))
    work = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda name: download(source / name, work / name), files))
        try:
            os.replace(work, folder)
        except OSError:
            if not folder.is_dir():  # another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def download(source: Address, target: Path) -> None:
    """Copies an object to a file of this machine.

    Raises: FileNotFoundError, StorageError; OSError of this machine's disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open() as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, PIECE_BYTES)


def hold_copy(folder: Path) -> None:
    """Makes the folder of a copy if need be, and keeps it while this process lives.

    Raises: OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    if folder not in _held:
        _held[folder] = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(_held[folder], fcntl.LOCK_SH | fcntl.LOCK_NB)


def make_room(new: Path, num_bytes: int) -> None:
    """Removes the copies that were not used for longest, until what is to come fits the bound.

    What a process uses stays.
    """
    most = int(os.environ.get("TULU_FETCHED_BYTES", KEPT_BYTES))
    with contextlib.suppress(OSError):  # others may remove them too
        every = [path for path in fetched_dir().iterdir() if path.is_dir()]
        sizes = {
            path: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) for path in every
        }
        total = sum(sizes.values()) + num_bytes
        for path in sorted(every, key=lambda path: path.stat().st_mtime):
            if total > most and path != new and not _is_used(path):
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]


def _is_used(folder: Path) -> bool:
    """Whether a process of this machine holds the copy."""
    try:
        descriptor = os.open(folder / IN_USE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
