"""Whether bytes look like the file they should be: no error page, no stub, not cut off."""

from __future__ import annotations

import html
import re
from pathlib import Path

from tulu_jax.download.options import BadContent, GiveUp
from tulu_jax.files import kind_of

_TAIL_BYTES = 1 << 16

_STARTS: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "json": ("JSON", (b"[", b"{")),
    "jsonl": ("JSON lines", (b"{", b"[")),
    "gz": ("a gzip file", (b"\x1f\x8b",)),
    "zip": ("a zip archive", (b"PK\x03\x04", b"PK\x05\x06")),
    "xlsx": ("an Excel file", (b"PK\x03\x04",)),
    "parquet": ("a Parquet file", (b"PAR1",)),
}
_ENDS = {"json": (b"]", b"}"), "jsonl": (b"}", b"]"), "parquet": (b"PAR1",)}
_TEXT = {"json", "jsonl"}


def check_head(head: bytes, name: str, *, at: str) -> None:
    """Passes when the first bytes may begin a file called `name`, at an address or a path.

    Raises: GiveUp for a web page, a Git LFS pointer, nothing at all, or another kind of file.
    """
    kind = _kind(name)
    expected, starts = _STARTS.get(kind, (f"the content of {name}", ()))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    answered = "://" in at
    what = "the answer" if answered else "what lies there"
    again = None if answered else "put the right file there, or delete it to fetch it"
    if not text:
        got = "0 bytes" if not head else "blanks"
        raise GiveUp("the file is empty", got=got, at=at, do=again)
    found = kind_of(text) or ""
    if found.startswith("a web page"):
        raise GiveUp(
            f"{what} is a web page, not the file",
            got=_page_title(text),
            at=at,
            expected=expected,
            do=again or "open the address in a browser to see why; a login or moved page is usual",
        )
    if found.startswith("a Git LFS pointer"):
        raise GiveUp(f"{what} is a Git LFS pointer, not the file", at=at, expected=expected,
                     do=again)  # fmt: skip
    if starts and not (text if kind in _TEXT else head).startswith(starts):
        raise GiveUp(
            f"{what} is another kind of file",
            got=kind_of(head) or repr(head[:40]),
            at=at,
            expected=expected,
            do=again,
        )


def check_tail(path: Path, name: str, *, at: str) -> None:
    """Passes when the file ends as its kind does.

    Raises: BadContent when it was cut off.
    """
    ends = _ENDS.get(_kind(name), b"")
    with open(path, "rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = stream.read().rstrip()
    if not tail.endswith(ends):
        end = tail[-30:].decode("utf-8", "replace")
        expected = " or ".join(word.decode() for word in ends)
        raise BadContent("the file is cut off", got=f"{end!r} at its end", at=at, expected=expected)


def _kind(name: str) -> str:
    suffix = name.rpartition(".")[2].lower()
    return {"ndjson": "jsonl", "jsonlines": "jsonl"}.get(suffix, suffix)


def _page_title(text: bytes) -> str:
    found = re.search(rb"<title[^>]*>(.*?)(</title|$)", text, re.IGNORECASE | re.DOTALL)
    if not found:
        return repr(text[:40].decode("utf-8", "replace"))
    title = html.unescape(found[1].decode("utf-8", "replace"))
    return repr(" ".join(title.split())[:80])
