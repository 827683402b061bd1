"""`checksums.json`: the SHA-256 of every file of an exported folder, written beside them."""

from __future__ import annotations

import hashlib
import json
import mmap
import threading
from pathlib import Path

from tulu_jax.checkpoint.parts import made_ahead
from tulu_jax.errors import CheckpointError

CHECKSUMS_NAME = "checksums.json"
BLOCK_BYTES = 32 * 2**20
"""Bytes of a file that are mapped at a time: reading would copy them."""


def file_checksum(path: Path, stop: threading.Event | None = None) -> str:
    """SHA-256 of a file in hex; of its beginning only when told to stop."""
    digest = hashlib.sha256()
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
    value = {"algorithm": "sha256", "files": dict(sorted(checksums.items()))}
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return path


def verify_checksums(folder: Path, stop: threading.Event | None = None) -> int | None:
    """How many files were compared and found right; None where there is no checksums.json.

    When told to stop it ends soon, and what it says means nothing.

    Raises:
      CheckpointError: a file is missing or has changed, or the list is malformed.
    """
    path = folder / CHECKSUMS_NAME
    if not path.is_file():
        return None
    files = _read_list(path)

    def check(name: str) -> str | None:
        whole = (folder / name).is_file() and file_checksum(folder / name, stop) == files[name]
        return None if whole else name

    wrong = [name for name in made_ahead(lambda n=name: check(n) for name in files) if name]
    if wrong:
        raise CheckpointError(
            "files are not those that were exported",
            got=f"{', '.join(wrong[:5])} missing or changed",
            at=folder,
            expected=f"the SHA-256 that {CHECKSUMS_NAME} lists",
            do=f"copy them again; if you changed them on purpose, delete {CHECKSUMS_NAME}",
        )
    return len(files)


def _read_list(path: Path) -> dict[str, str]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("checksums.json is unreadable", got=error, at=path) from error
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(checksum, str) and Path(name).name == name for name, checksum in files.items()
    ):
        raise CheckpointError(
            "checksums.json is malformed",
            at=path,
            expected='{"files": {plain file name: SHA-256 in hex}}',
            do="delete it to import without the check",
        )
    return files
