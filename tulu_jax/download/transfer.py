"""From an address to a whole file on disk: resumed, retried, refused when it is something else."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tulu_jax.download.content import check_head
from tulu_jax.download.http import read_body, request, shown
from tulu_jax.download.options import FetchOptions, GiveUp, TryAgain, disk_full
from tulu_jax.download.sources import Origin, short_hash
from tulu_jax.files import HEAD_BYTES

ADVANCE_BYTES = 1 << 20
"""An attempt that brings so much more than any before starts the count of retries anew."""

Version = dict[str, Any]
"""The state of a file that bytes are of: its ETag, Last-Modified and size, as far as known."""


class Unfinished:
    """The bytes of one address so far, in `<stem>.part`, and the `Version` in `<stem>.json`.

    They survive the process at any moment: what is in the file is what the server sent of that
    version, from the start.
    """

    def __init__(self, folder: Path, group: str, where: str) -> None:
        """`folder` is where unfinished downloads lie; it need not exist. `group`: the download."""
        self._folder, self._stem = folder, f"{group}-{short_hash(where)}"
        self.path = folder / f"{self._stem}.part"
        self._version_path = folder / f"{self._stem}.json"

    def unpacked(self, filename: str) -> Path:
        """Where what is unpacked lies before it is moved to its place."""
        return self._folder / f"{self._stem}.{short_hash(filename)}"

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version:
        """The version that the bytes are of; empty when there are none to go on from."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._version_path.read_text(encoding="utf-8"))
            if isinstance(found, dict) and self.size:
                return found
        return {}

    def restart(self, version: Version) -> None:
        """No bytes, of this version. In this order, no old bytes ever go with a new version."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self.state(version)

    def state(self, version: Version) -> None:
        """Writes down what the bytes are of; when that is cut off, they are begun anew."""
        self._version_path.write_text(json.dumps(version), encoding="utf-8")

    def clear(self) -> None:
        """Removes what there is."""
        remove_all(self._folder, f"{self._stem}.*")


def remove_all(folder: Path, pattern: str) -> None:
    """Removes the files and folders in `folder` of such names."""
    for path in folder.glob(pattern):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def transfer(
    part: Unfinished,
    origin: Origin,
    *,
    options: FetchOptions,
    update: Callable[[int, int | None], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Makes `part` the whole file at an address, tried again after faults that may pass.

    Raises: GiveUp when this address does not serve it; DataError when the disk is full.
    """
    failures, best = 0, part.size
    while True:
        options.check_stopped()
        try:
            _attempt(part, origin, options, update)
            return
        except TryAgain as error:
            size = part.size
            failures = 1 if size >= best + ADVANCE_BYTES else failures + 1
            best = max(best, size)
            if failures > options.retries:
                raise GiveUp(f"{error} - gave up after {failures} attempts") from error
            wait_s = min(options.backoff_s * 2 ** (failures - 1), options.backoff_cap_s)
            wait_s = max(error.wait_s, wait_s * random.uniform(0.75, 1.0))
            note(f"{error} - trying again in {wait_s:.0f} s ({failures}/{options.retries})")
            options.stop.wait(wait_s)


def _attempt(
    part: Unfinished,
    origin: Origin,
    options: FetchOptions,
    update: Callable[[int, int | None], None],
) -> None:
    """One request for what is not there yet."""
    version, at = part.version(), shown(origin.where)
    if version.get("bytes") == part.size:
        return  # stopped between the last byte and what is made of it
    headers = {}
    # Bytes without a mark of version may be gone on from only if a checksum will tell
    if version and (version.keys() - {"bytes"} or origin.sha256):
        headers["Range"] = f"bytes={part.size}-"
        if if_range := _if_range(version):
            headers["If-Range"] = if_range
    timeout_s = options.timeout_s
    with request(origin.where, origin.sources[0], headers=headers, timeout_s=timeout_s) as answer:
        total = _begin(answer, part, version, at=at)
        done = part.size
        free = shutil.disk_usage(part.path.parent).free
        if total is not None and total - done > free:
            more = f"{free:,} bytes free, {total - done:,} more to fetch"
            raise disk_full(part.path.parent, more)
        with open(part.path, "ab", buffering=0) as out:
            for block in read_body(answer, timeout_s=timeout_s, min_rate=options.min_rate, at=at):
                options.check_stopped()
                view = memoryview(block)
                while view:
                    view = view[out.write(view) :]
                if done < HEAD_BYTES <= done + len(block):
                    _check_head(part, origin.name, at=at)
                done += len(block)
                update(done, total)
    if total is None:
        part.state({**_version(answer), "bytes": done})
    elif done != total:
        if done > total:
            part.clear()
        raise TryAgain(
            "the length is not the one announced",
            got=f"{done:,} bytes",
            at=at,
            expected=f"{total:,}",
        )


def _begin(answer: requests.Response, part: Unfinished, version: Version, *, at: str) -> int | None:
    """Readies the part for what the answer brings; the size of the whole, None if unknown."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise GiveUp(
            "the server packs what it sends, though it was asked not to",
            got=f"Content-Encoding {encoding!r}",
            at=at,
            expected="the file itself",
        )
    now = _version(answer)
    if answer.status_code == 200:
        if now.get("bytes") == 0:
            raise GiveUp("the file is empty", got="0 bytes", at=at)
        part.restart(now)
        return now.get("bytes")
    given = answer.headers.get("Content-Range", "")
    goes_on = version and given.startswith(f"bytes {part.size}-")
    if not goes_on or any(now[name] != version[name] for name in now.keys() & version.keys()):
        expected = f"bytes {part.size}-.../{version.get('bytes', '...')} of the same version"
        part.clear()
        raise TryAgain(
            "cannot go on where it stopped, the file is fetched anew",
            got=f"{answer.status_code}, Content-Range {given!r}",
            at=at,
            expected=expected,
        )
    return now.get("bytes", version.get("bytes"))


def _version(answer: requests.Response) -> Version:
    """The version that an answer brings, whole or from somewhere on."""
    headers = answer.headers
    found: Version = {name: headers[name] for name in ("ETag", "Last-Modified") if name in headers}
    whole = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    size = answer.raw.length_remaining if answer.status_code == 200 else whole and int(whole[1])
    return found if size is None else {**found, "bytes": size}


def _if_range(version: Version) -> str | None:
    """What makes a server send the whole file anew if it has changed; a weak ETag may not."""
    etag = version.get("ETag", "W/")
    return version.get("Last-Modified") if etag.startswith("W/") else etag


def _check_head(part: Unfinished, name: str, *, at: str) -> None:
    """Passes when the file begins as its kind does; else what came is thrown away."""
    with open(part.path, "rb") as stream:
        head = stream.read(HEAD_BYTES)
    try:
        check_head(head, name, at=at)
    except GiveUp:
        part.clear()
        raise
