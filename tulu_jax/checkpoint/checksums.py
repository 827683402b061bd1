"""`checksums.json`: a checksum of every file of an exported folder, written beside them.

It is there to tell damage: files that were cut, mixed up or changed since. XXH3 with 128 bits does
that 15 times as fast as SHA-256, which took longer than all the rest of an export. Neither tells
forgery here: who changes a file can change the list beside it. Lists with SHA-256, which older
versions wrote, are compared all the same.
"""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from tulu_jax.checkpoint.lazy import made_ahead
from tulu_jax.errors import CheckpointError
from tulu_jax.files import read_json, write_json
from tulu_jax.places import Address, Place, read_ranges

CHECKSUMS_NAME = "checksums.json"
ALGORITHM = "xxh128"
"""What is written."""
BLOCK_BYTES = 32 * 2**20
"""Bytes of a file that are mapped at a time: reading would copy them."""


ALGORITHMS: dict[str, Callable[[], Any]] = {
    ALGORITHM: xxhash.xxh3_128,
    "sha256": hashlib.sha256,
}
"""What can be compared: name -> what begins a checksum, as `hashlib` does."""


def file_checksum(
    path: Place, algorithm: str = ALGORITHM, stop: threading.Event | None = None
) -> str:
    """Checksum of a file in hex; of its beginning only when told to stop."""
    digest = ALGORITHMS[algorithm]()
    if isinstance(path, Address):
        size = path.stat().st_size
        for start in range(0, size, BLOCK_BYTES):
            if stop is not None and stop.is_set():
                break
            digest.update(read_ranges(path, [(start, min(start + BLOCK_BYTES, size))])[0])
        return digest.hexdigest()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        for start in range(0, size, BLOCK_BYTES):
            if stop is not None and stop.is_set():
                break
            count = min(BLOCK_BYTES, size - start)
            with mmap.mmap(file.fileno(), count, access=mmap.ACCESS_READ, offset=start) as block:
                digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: Path, checksums: dict[str, str]) -> Path:
    """Writes the file; names are sorted, so equal folders have equal files."""
    path = folder / CHECKSUMS_NAME
    value = {"algorithm": ALGORITHM, "files": dict(sorted(checksums.items()))}
    write_json(path, value)
    return path


def verify_checksums(folder: Place, stop: threading.Event | None = None) -> int | None:
    """How many files were compared and found right; None where there is no checksums.json.

    When told to stop it ends soon, and what it says means nothing.

    Raises:
      CheckpointError: a file is missing or has changed, or the list is malformed or names an
        algorithm that we do not have.
    """
    path = folder / CHECKSUMS_NAME
    if not path.is_file():
        return None
    algorithm, files = _read_list(path)

    def check(name: str) -> str | None:
        file = folder / name
        whole = file.is_file() and file_checksum(file, algorithm, stop) == files[name]
        return None if whole else name

    wrong = [name for name in made_ahead(lambda n=name: check(n) for name in files) if name]
    if wrong:
        raise CheckpointError(
            "files are not those that were exported",
            got=f"{', '.join(wrong[:5])} missing or changed",
            at=folder,
            expected=f"the {algorithm} that {CHECKSUMS_NAME} lists",
            do=f"copy them again; if you changed them on purpose, delete {CHECKSUMS_NAME}",
        )
    return len(files)


def _read_list(path: Place) -> tuple[str, dict[str, str]]:
    """The algorithm, and the checksum of each file by name."""
    value = read_json(path, CheckpointError, mend="copy it again, or import with --skip_checksums")
    files = value.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(checksum, str) and Path(name).name == name for name, checksum in files.items()
    ):
        raise CheckpointError(
            "checksums.json is malformed",
            at=path,
            expected='{"algorithm": name, "files": {plain file name: checksum in hex}}',
            do="delete it to import without the check",
        )
    algorithm = value.get("algorithm", "sha256")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise CheckpointError(
            "checksums.json has checksums of an algorithm that is not known",
            got=repr(algorithm),
            at=path,
            expected=" or ".join(ALGORITHMS),
            do="compare the files with its own tool, then import with --skip_checksums",
        )
    return algorithm, files
