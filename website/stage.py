"""What the generator reads: the pages of docs/ with links inside the site, and pages of code."""

from __future__ import annotations

import functools
import os
import re
import shutil
from pathlib import Path

from website import api, errors, rooms
from website.source import ROOT, Source

DOCS = ROOT / "docs"
HERE = Path(__file__).parent

MORE_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "measurements.md",
    "benchmarks/vs_easylm.md": "vs_easylm.md",
}
"""Pages that lie elsewhere in the repository, and their names in the site."""

ASSETS = ("extra.css", "extra.js", "worker.js")

FENCE = re.compile(r"^( {0,3}(?:```|~~~)).*?^\1", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`+[^`\n]*`+")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
LIST = re.compile(r"(?:[-*] |1\. )")
MADE = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)


class LinkError(ValueError):
    """A page names a file that is not there."""


def stage(folder: Path) -> None:
    """Writes the whole source of the site into an empty folder.

    Raises:
      LinkError: a page links to a file that is not there.
    """
    messages = errors.messages(errors.sites(source()))
    made = {
        "errors": errors.index(messages, _titles(messages)),
        "rooms": _rooms(),
        "api": api.index(),
    }
    pages = {path: name_of(path) for path in sorted(DOCS.rglob("*.md"))}
    pages |= {ROOT / path: name for path, name in MORE_PAGES.items()}
    for path, name in pages.items():
        text = _page(path.read_text(encoding="utf-8"), path, name, folder)
        _write(folder / name, MADE.sub(lambda match: made[match[1]], text))
    about = errors.kinds(source())
    for room, by_kind in messages.items():
        _write(folder / errors.page_name(room), errors.room_page(room, by_kind, about))
    for name, text in api.pages().items():
        _write(folder / name, text)
    for name in ASSETS:
        shutil.copyfile(HERE / name, folder / name)


@functools.cache
def source() -> Source:
    """The project's code, parsed once."""
    return Source()


def name_of(page: Path) -> str:
    """What a page of docs/ is called in the site: the README of a folder is its first page."""
    return page.relative_to(DOCS).as_posix().replace("README.md", "index.md")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _titles(messages: dict) -> dict[str, str]:
    return {
        room: f"`{room}`: {rooms.about(room)[0].lower()}{rooms.about(room)[1:]}"
        for room in messages
    }


def _rooms() -> str:
    allowed = rooms.rooms()
    links = {room: f"api/{name}.html" for room, name in api.PAGE_OF_ROOM.items()}
    drawn = rooms.picture(allowed, links)
    return f'<div class="picture">\n{drawn}\n</div>\n\n{rooms.table(allowed)}'


def _page(text: str, path: Path, name: str, folder: Path) -> str:
    """A page whose links stay in the site, with what GitHub allows and the generator does not."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\x00{len(kept) - 1}\x00"

    text = CODE.sub(keep, FENCE.sub(keep, text))
    text = LINK.sub(lambda match: match[1] + _inside(match[2], path, name, folder) + match[3], text)
    text = re.sub(r"^  ([-*] )", r"    \1", _lists_apart(text), flags=re.MULTILINE)
    while "\x00" in text:
        text = re.sub(r"\x00(\d+)\x00", lambda match: kept[int(match[1])], text)
    return text


def _lists_apart(text: str) -> str:
    r"""The text with an empty line before each list that follows a paragraph.

    >>> _lists_apart("Two:\n- a\n- b")
    'Two:\n\n- a\n- b'
    """
    lines: list[str] = []
    for line in text.split("\n"):
        last = lines[-1] if lines else ""
        if LIST.match(line) and last.strip() and not LIST.match(last) and last[0] not in " |":
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _inside(link: str, path: Path, name: str, folder: Path) -> str:
    """Where a link of a page leads in the site; a file that is no page is copied into it."""
    address, _, anchor = link.partition("#")
    if "://" in address or address.startswith("mailto:") or not address:
        return link
    leads = Path(os.path.normpath(path.parent / address))
    if not leads.is_file():
        raise LinkError(f"{name} leads to {link}, which is not a file")
    if leads.is_relative_to(DOCS) and leads.suffix == ".md":
        to = name_of(leads)
    else:
        within = leads.relative_to(ROOT).as_posix()
        to = MORE_PAGES.get(within) or f"files/{within}"
        if within not in MORE_PAGES:
            (folder / to).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(leads, folder / to)
    relative = os.path.relpath(to, Path(name).parent)
    return f"{relative}#{anchor}" if anchor else relative
