"""Whether bytes look like the file they should be: no error page, no stub, not cut off."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from tulu_jax.download.options import BadContent, GiveUp
from tulu_jax.files import kind_of

HEAD_BYTES = 512
_TAIL_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 26

_STARTS: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "json": ("JSON", (b"[", b"{")),
    "jsonl": ("JSON lines", (b"{", b"[")),
    "gz": ("a gzip file", (b"\x1f\x8b",)),
    "zip": ("a zip archive", (b"PK\x03\x04", b"PK\x05\x06")),
    "xlsx": ("an Excel file", (b"PK\x03\x04",)),
    "parquet": ("a Parquet file", (b"PAR1",)),
}
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
    kind = _kind(name)
    if kind not in ("json", "jsonl", "parquet"):
        return
    with open(path, "rb") as stream:
        head = stream.read(HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL_BYTES))
        tail = stream.read().rstrip()
    if kind == "parquet":
        whole, expected = tail.endswith(b"PAR1"), "PAR1"
    elif kind == "json":
        closing = {b"[": b"]", b"{": b"}"}[head[:1]]
        whole, expected = tail.endswith(closing), closing.decode()
    else:
        whole, expected = _is_json(_last_line(path, size)), "a whole line of JSON"
    if not whole:
        end = tail[-30:].decode("utf-8", "replace")
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


def _last_line(path: Path, size: int) -> bytes | None:
    """The last line that is not blank; None when it is too long to look at."""
    length = _TAIL_BYTES
    with open(path, "rb") as stream:
        while True:
            stream.seek(max(0, size - length))
            block = stream.read().rstrip()
            start = block.rfind(b"\n")
            if start >= 0 or length >= size:
                return block[start + 1 :]
            if length > _LONGEST_LINE_BYTES:
                return None
            length *= 4


def _is_json(line: bytes | None) -> bool:
    if line is None:
        return True
    try:
        json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
