"""A download that is under way, as it lies on disk: its bytes, and what the server said of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tulu_jax.download.plan import short_hash


@dataclass(frozen=True)
class Version:
    """Which state of the file the bytes are of: the server's marks for it and its whole size."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total_bytes: int | None = None

    @staticmethod
    def of(url: str, headers: Mapping[str, str], total_bytes: int | None) -> Version:
        """The version that an answer with these headers brings."""
        return Version(url, headers.get("ETag"), headers.get("Last-Modified"), total_bytes)

    @property
    def if_range(self) -> str | None:
        """What makes a server send the whole file anew if it has changed; a weak ETag may not."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    @property
    def marked(self) -> bool:
        """Whether a later answer can be known to be of the same version."""
        return bool(self.etag or self.last_modified)

    def same_as(self, other: Version) -> bool:
        """Whether no mark that both have, nor the size, differs."""
        pairs = [
            (self.etag, other.etag),
            (self.last_modified, other.last_modified),
            (self.total_bytes, other.total_bytes),
        ]
        return all(a == b for a, b in pairs if a is not None and b is not None)


class Part:
    """The bytes of one address so far (`<stem>.part`), then the whole (`<stem>.whole`).

    They survive the process at any moment: what is in the file is what the server sent, from the
    start, of the version in `<stem>.json`.
    """

    def __init__(self, folder: Path, group: str, where: str) -> None:
        """`folder` is where unfinished downloads lie; it need not exist. `group`: the download."""
        self.where = where
        self._folder, self._stem = folder, f"{group}-{short_hash(where)}"
        self.path = folder / f"{self._stem}.part"
        self.whole = folder / f"{self._stem}.whole"
        self._version_path = folder / f"{self._stem}.json"

    def made(self, filename: str) -> Path:
        """Where what is unpacked lies before it is moved to its place."""
        return self._folder / f"{self._stem}.{short_hash(filename)}"

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version | None:
        """The version that the bytes are of; None when there are none to go on from."""
        if not self.size:
            return None
        try:
            found = Version(**json.loads(self._version_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.url == self.where else None

    def restart(self, version: Version) -> None:
        """No bytes, of this version. In this order, no old bytes ever go with a new version."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        temporary = self._version_path.with_suffix(".tmp")
        write_atomically(self._version_path, json.dumps(asdict(version)), temporary=temporary)

    def complete(self) -> None:
        """Makes the part the whole file."""
        with open(self.path, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(self.path, self.whole)
        self._version_path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes what there is."""
        for path in self._folder.glob(f"{self._stem}.*"):
            remove(path)


def clear_group(folder: Path, group: str) -> None:
    """Removes all that the download `group` left, of whatever address."""
    for path in folder.glob(f"{group}-*"):
        remove(path)


def remove(path: Path) -> None:
    """Removes a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, *, temporary: Path) -> None:
    """Writes a small file so that at any moment it is the old one or the new one."""
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
