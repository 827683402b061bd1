"""Whether a built site hangs together: every link, picture and script leads to something in it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}
"""Elements whose address a browser loads by itself, and the attribute that holds it."""

NOT_LOADED = {"canonical", "alternate", "prev", "next", "edit"}
"""Relations of `<link>` that only say something."""

CSS_ADDRESS = re.compile(r"""(?:url\(|@import)\s*["']?(https?:)?//""")


@dataclasses.dataclass
class Page:
    """What a page of HTML refers to, and the anchors that it has."""

    links: list[str] = dataclasses.field(default_factory=list)
    loads: list[str] = dataclasses.field(default_factory=list)
    anchors: set[str] = dataclasses.field(default_factory=set)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.page.anchors.update(given[name] for name in ("id", "name") if given.get(name))
        if tag == "a" and "href" in given:
            self.page.links.append(given["href"])
        relations = set(given.get("rel", "").split())
        if LOADED.get(tag) in given and not (tag == "link" and relations & NOT_LOADED):
            self.page.loads.append(given[LOADED[tag]])


def read_page(path: Path) -> Page:
    """The links, loads and anchors of a page."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def read_site(site: Path) -> dict[Path, Page]:
    """All pages of a site by their path."""
    return {path: read_page(path) for path in sorted(site.rglob("*.html"))}


def target(page: Path, link: str) -> tuple[Path, str] | None:
    """The file and the anchor that a link of a page leads to; None where it leaves the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
    return (path / "index.html" if path.is_dir() else path), unquote(parts.fragment)


def faults(site: Path) -> Iterator[str]:
    """What is wrong with a site: links to nothing, and what a browser would fetch elsewhere."""
    site = site.resolve()
    pages = read_site(site)
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in (*page.links, *page.loads):
            leads = target(path, link)
            if leads is None:
                if link in page.loads:
                    yield f"{name} loads {link} from elsewhere"
            elif not leads[0].exists():
                yield f"{name} leads to {link}, which is not there"
            elif leads[1] and leads[0] in pages and leads[1] not in pages[leads[0]].anchors:
                yield f"{name} leads to {link}: there is no such place on that page"
    for path in sorted(site.rglob("*.css")):
        if CSS_ADDRESS.search(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} loads something from elsewhere"


def clicks(site: Path, *, start: str = "index.html") -> dict[Path, int]:
    """Page -> the fewest links to follow from the first page, those of menus left out.

    Only links in the text of pages count: menus would put every page one click away.
    """
    site = site.resolve()
    found = {site / start: 0}
    last = [site / start]
    while last:
        reached = [path for one in last for path in _text_links(one) if path not in found]
        count = found[last[0]] + 1
        found.update(dict.fromkeys(reached, count))
        last = list(dict.fromkeys(reached))
    return found


def _text_links(page: Path) -> list[Path]:
    article = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    reader = _Reader()
    reader.feed(article[0] if article else "")
    leads = (target(page, link) for link in reader.page.links)
    return [one[0] for one in leads if one is not None and one[0].suffix == ".html"]
