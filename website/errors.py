"""Every message that the project's errors can have, read from where they are made."""

from __future__ import annotations

import ast
import dataclasses
import html
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from website.rooms import room_of
from website.source import Place, Source, blank

BASE = "TuluError"
ERRORS = "tulu_jax/errors.py"
PARTS = ("got", "at", "expected", "do")
FEW = 4
"""More wordings of a part than this are shown as a blank."""

BLANK = re.compile(r"‹[^›]*›")


@dataclasses.dataclass(frozen=True)
class Site:
    """A place in the code that makes an error."""

    kind: str
    path: str
    line: int
    what: tuple[str, ...]
    """The wordings of its first part."""
    parts: tuple[tuple[str, tuple[str, ...]], ...]
    """(`got`, `at`, `expected` or `do`; its wordings), those that are given."""


@dataclasses.dataclass
class Message:
    """One message of a room: its text, and the sites that have it."""

    text: str
    anchor: str
    sites: list[Site]


def kinds(source: Source) -> dict[str, str]:
    """Names of the error classes, each with the first line of its docstring."""
    found = {BASE: ""}
    while True:
        more = {
            node.name: (ast.get_docstring(node) or "").split("\n")[0]
            for node in source.classes
            if node.name not in found
            and any(isinstance(base, ast.Name) and base.id in found for base in node.bases)
        }
        if not more:
            return found
        found.update(more)


def sites(source: Source) -> list[Site]:
    """All places that make an error, in order of file and line."""
    found = [
        _site(source, kind, place, call)
        for kind in kinds(source)
        for place, call in source.calls[kind]
        if place.path != ERRORS and isinstance(call.func, ast.Name)
    ]
    return sorted(found, key=lambda site: (site.path, site.line))


def _site(source: Source, kind: str, place: Place, call: ast.Call) -> Site:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    first = call.args[0] if call.args else given.get("what")
    what = [] if first is None else source.texts(first, place)
    if first is not None and any(words(text) < 2 for text in what):
        what = source.texts(first, place, follow=True)
    parts = []
    for name in PARTS:
        if name in given:
            texts = source.texts(given[name], place, follow=name in ("expected", "do"))
            texts = [text for text in texts if text != "None"]
            shown = texts if len(texts) <= FEW else [blank(given[name])]
            parts.append((name, tuple(shown)))
    return Site(kind, place.path, call.lineno, tuple(what), tuple(parts))


def words(text: str) -> int:
    """How many words of a wording are written in the code, and no blanks."""
    return len(re.findall(r"[A-Za-z]{2,}", BLANK.sub(" ", text)))


def messages(found: Iterable[Site]) -> dict[str, dict[str, list[Message]]]:
    """Room -> kind -> its messages, each once, in alphabetical order."""
    grouped: dict[str, dict[str, dict[str, list[Site]]]] = defaultdict(lambda: defaultdict(dict))
    for site in found:
        for text in site.what or ("‹message›",):
            grouped[room_of(site.path)][site.kind].setdefault(text, []).append(site)
    made: dict[str, dict[str, list[Message]]] = {}
    for room, by_kind in sorted(grouped.items()):
        taken: set[str] = set()
        made[room] = {
            kind: [
                Message(text, _anchor(text, taken), by_text[text])
                for text in sorted(by_text, key=str.lower)
            ]
            for kind, by_text in sorted(by_kind.items())
        }
    return made


def _anchor(text: str, taken: set[str]) -> str:
    """A name for a message that is unique on its page and stays while its words do.

    >>> _anchor("MODEL_DIR is not set", set())
    'model_dir-is-not-set'
    """
    plain = re.sub(r"[^a-z0-9_]+", "-", BLANK.sub("x", text).lower()).strip("-")[:70].strip("-")
    anchor = next(
        name
        for name in (plain or "message", *(f"{plain or 'message'}-{n}" for n in range(2, 1000)))
        if name not in taken
    )
    taken.add(anchor)
    return anchor


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+\-.!|~])", r"\\\1", html.escape(text, quote=False))
    return re.sub(r"\s+", " ", escaped).strip()


def page_name(room: str) -> str:
    """The room's page, below the page of all errors."""
    return f"errors/{room.removeprefix('tulu_jax/').replace('/', '_')}.md"


def room_page(room: str, by_kind: dict[str, list[Message]], about: dict[str, str]) -> str:
    """The page of one room's messages."""
    count = sum(len(found) for found in by_kind.values())
    lines = [
        "---",
        "hide: [toc]",
        "---",
        "",
        f"# Messages of {room}",
        "",
        f"{count} messages, made from the code. ‹Blanks› are filled when the error is told: "
        "*what is wrong - got X at place - expected Y - do Z*. "
        "[All messages, and a box to paste yours into](../troubleshooting.md).",
        "",
    ]
    for kind, found in by_kind.items():
        lines += [f"## {kind}", "", plain(about[kind]) or "An error of this project.", ""]
        for message in found:
            lines += [f"### {plain(message.text)} {{ #{message.anchor} }}", ""]
            lines += _details(message.sites)
    return "\n".join(lines)


def _details(found: Sequence[Site]) -> list[str]:
    lines: list[str] = []
    for parts, group in _alike(found):
        lines += [f"- **{name}** {plain(' / '.join(texts))}" for name, texts in parts if texts]
        where = ", ".join(dict.fromkeys(f"`{site.path}`" for site in group))
        lines += [f"- {where}", "", "<!-- -->", ""]
    return lines


def _alike(
    found: Sequence[Site],
) -> list[tuple[tuple[tuple[str, tuple[str, ...]], ...], list[Site]]]:
    by_parts: dict[tuple, list[Site]] = defaultdict(list)
    for site in found:
        by_parts[site.parts].append(site)
    return list(by_parts.items())


def index(made: dict[str, dict[str, list[Message]]], titles: dict[str, str]) -> str:
    """The list of all messages, by room, each a link to where it is explained."""
    lines = []
    for room, by_kind in made.items():
        page = page_name(room)
        lines += [f"### [{titles.get(room, room)}]({page}) {{ #{page[7:-3]} }}", ""]
        every = sorted(
            (message for found in by_kind.values() for message in found),
            key=lambda message: message.text.lower(),
        )
        lines += [f"- [{plain(message.text)}]({page}#{message.anchor})" for message in every]
        lines.append("")
    return "\n".join(lines)
