"""From an address to a whole file on disk: resumed, retried, refused when it is something else."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tulu_jax.download.content import HEAD_BYTES, check_head
from tulu_jax.download.options import (
    FetchOptions,
    GiveUp,
    Progress,
    TryAgain,
    disk_errors,
    disk_full,
)
from tulu_jax.download.part import Part, Version
from tulu_jax.download.wire import Access, read_body, request, shown

ADVANCE_BYTES = 1 << 20
"""An attempt that brings so much more than any before starts the count of retries anew."""

_TICK_S = 0.1


class Transfer:
    """One address and the part that it fills; `name` says by its ending what is expected."""

    def __init__(
        self,
        part: Part,
        name: str,
        *,
        access: Access,
        options: FetchOptions,
        progress: Progress,
        label: str,
        sure: bool = False,
    ) -> None:
        """`sure`: a checksum is known, so bytes without a mark of version may be gone on from."""
        self._part, self._name, self._access = part, name, access
        self._options, self._progress, self._label = options, progress, label
        self._sure = sure
        self._at = shown(part.where)

    def run(self) -> Path:
        """The whole file, tried again after faults that may pass.

        Raises: GiveUp when this address does not serve it; DataError when the disk is full.
        """
        failures, best = 0, self._part.size
        while not self._part.whole.exists():
            self._options.check_stopped()
            try:
                self._attempt()
                with disk_errors(self._part.whole):
                    self._part.complete()
            except TryAgain as error:
                size = self._part.size
                failures = 1 if size >= best + ADVANCE_BYTES else failures + 1
                best = max(best, size)
                if failures > self._options.retries:
                    raise GiveUp(f"{error} - gave up after {failures} attempts") from error
                self._pause(error, failures)
        return self._part.whole

    def _pause(self, error: TryAgain, failures: int) -> None:
        options = self._options
        wait_s = min(options.backoff_s * 2 ** (failures - 1), options.backoff_cap_s)
        wait_s = max(error.wait_s, wait_s * random.uniform(0.75, 1.0))
        self._progress.note(
            self._label, f"{error} - trying again in {wait_s:.0f} s ({failures}/{options.retries})"
        )
        options.stop.wait(wait_s)

    def _attempt(self) -> None:
        part, options = self._part, self._options
        version = part.version()
        if version is not None and version.total_bytes == part.size:
            return  # stopped between the last byte and `complete`
        headers = _range_headers(part, version, sure=self._sure)
        with request(
            part.where, self._access, headers=headers, timeout_s=options.timeout_s
        ) as answer:
            if version is not None and "Range" in headers and answer.status_code != 200:
                left = self._resume(answer, version)
            else:
                left = self._start(answer)
            if left == 0:
                return
            _check_encoding(answer, at=self._at)
            blocks = read_body(
                answer,
                timeout_s=options.timeout_s,
                min_rate=options.min_rate,
                at=self._at,
                clock=time.monotonic,
            )
            self._write(blocks, left)

    def _start(self, answer: Any) -> int | None:
        """Empties the part; the bytes that will come, None when the server does not say."""
        if answer.status_code != 200:
            raise TryAgain(
                "the server answers a part that was not asked for",
                got=answer.status_code,
                at=self._at,
                expected=200,
            )
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() and not _chunked(answer) else None
        if total == 0:
            raise GiveUp("the file is empty", got="0 bytes", at=self._at)
        with disk_errors(self._part.path):
            self._part.restart(Version.of(self._part.where, answer.headers, total))
        return total

    def _resume(self, answer: Any, version: Version) -> int | None:
        """Checks that the answer goes on where the part ends; the bytes that will come."""
        offset = self._part.size
        given = answer.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", given.strip())
        start, _, total = found.groups() if found else (None, None, None)
        now = Version.of(self._part.where, answer.headers, _number(total))
        if answer.status_code == 416 and version.same_as(now) and now.total_bytes == offset:
            return 0
        right = answer.status_code == 206 and start is not None and int(start) == offset
        if not right or not version.same_as(now):
            with disk_errors(self._part.path):
                self._part.clear()
            raise TryAgain(
                "cannot go on where it stopped, the file is fetched anew",
                got=f"{answer.status_code}, Content-Range {given!r}",
                at=self._at,
                expected=f"bytes {offset}-.../{version.total_bytes or '...'} of the same version",
            )
        total_bytes = now.total_bytes or version.total_bytes
        if total_bytes is None:
            return _number(answer.headers.get("Content-Length"))
        return total_bytes - offset

    def _write(self, blocks: Any, left: int | None) -> None:
        part, options = self._part, self._options
        done = part.size
        total = None if left is None else done + left
        free = shutil.disk_usage(part.path.parent).free
        if left is not None and left > free:
            raise disk_full(part.path, f"{free:,} bytes free, {left:,} more to fetch")
        tick = Ticker(self._progress, self._label, total, "fetching")
        with disk_errors(part.path), open(part.path, "ab", buffering=0) as out:
            for block in blocks:
                options.check_stopped()
                view = memoryview(block)
                while view:
                    view = view[out.write(view) :]
                if done < HEAD_BYTES <= done + len(block):
                    self._check_head()
                done += len(block)
                tick(done)
        if total is not None and done != total:
            if done > total:
                part.clear()
            raise TryAgain(
                "the length is not the one announced",
                got=f"{done:,} bytes",
                at=self._at,
                expected=f"{total:,}",
            )
        if done < HEAD_BYTES:
            self._check_head()

    def _check_head(self) -> None:
        with open(self._part.path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
        try:
            check_head(head, self._name, at=self._at)
        except GiveUp:
            self._part.clear()
            raise


class Ticker:
    """Tells the progress how far it is, a few times a second."""

    def __init__(self, progress: Progress, label: str, total: int | None, stage: str) -> None:
        """Tells the start at once."""
        self._tell: Callable[[int], None] = lambda done: progress.update(label, done, total, stage)
        self._next = 0.0

    def __call__(self, done: int) -> None:
        """Tells `done` if the last time is long enough ago."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + _TICK_S
            self._tell(done)


def _range_headers(part: Part, version: Version | None, *, sure: bool) -> dict[str, str]:
    """Asks for the rest of the file, if the server's answer can be held to the version we have."""
    if version is None or not (version.marked or sure):
        return {}
    headers = {"Range": f"bytes={part.size}-"}
    if version.if_range:
        headers["If-Range"] = version.if_range
    return headers


def _check_encoding(answer: Any, *, at: str) -> None:
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise GiveUp(
            "the server packs what it sends, though it was asked not to",
            got=f"Content-Encoding {encoding!r}",
            at=at,
            expected="the file itself",
        )


def _chunked(answer: Any) -> bool:
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
