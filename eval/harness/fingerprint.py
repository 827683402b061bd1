"""What tells one model from another, without reading all of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tulu_jax.files import json_sha256
from tulu_jax.places import Address, Place

PIECE = 1 << 16
PIECES = 64
"""So many pieces of a file are read, spread evenly from its first to its last byte."""
RECORD, UNFINISHED = "checksums.json", ".download"
"""What `tulu data download` writes into a folder of data beside the data."""


def fingerprint(folders: Iterable[Place], **settings: Any) -> str:
    """A SHA-256 (hex) of all files of a model, and of what else decides its answers.

    Small files count whole, of large ones 64 pieces of 64 KiB and the size: training changes
    every weight, so that is enough to tell checkpoints apart, and it takes no time.

    Args:
      folders: what the model is read from, a folder or a file each.
      settings: such as the dtype.
    """
    parts: list[Any] = [settings]
    for folder in folders:
        if isinstance(folder, Address):
            parts += [[f"{folder.name}/{name}", *facts] for name, facts in folder.files().items()]
            continue
        files = (
            [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
        )
        parts += [[str(file.relative_to(folder.parent)), _digest(file)] for file in files]
    return json_sha256(parts)


def _digest(file: Path) -> str:
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(file, "rb") as stream:
        if size <= PIECE * PIECES:
            digest.update(stream.read())
            return digest.hexdigest()
        for index in range(PIECES):
            stream.seek((size - PIECE) * index // (PIECES - 1))
            digest.update(stream.read(PIECE))
    return digest.hexdigest()


def data_sha256(path: Path) -> str | None:
    """A SHA-256 (hex) of a benchmark's data folder or file: every name and content.

    None where there is none, as of questions that are generated. What `tulu data download` notes of
    where files came from is no data.
    """
    if not path.exists():
        return None
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    files = [file for file in files if not {RECORD, UNFINISHED} & set(file.relative_to(path).parts)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(path.parent)).encode() + b"\0")
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
