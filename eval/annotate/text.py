"""Markdown of models and users as safe HTML: the same for every model, and nothing is fetched.

HTML within it is text. Images are not shown: the address of one could tell whose answer it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

LONGEST = 30_000
"""Characters of a text that is rendered: of the worst it takes seconds. A longer one is plain."""

_TAGS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "s", "blockquote",
         "ul", "ol", "li", "pre", "code", "a", "table", "thead", "tbody", "tr", "th",
         "td"}  # fmt: skip
_ATTRIBUTES = {"*": set[str](), "a": {"href"}, "ol": {"start"}}
_DEEP = re.compile(r"^(?:[ \t]*(?:>|[-*+]|\d{1,9}[.)])){8}", re.MULTILINE)
"""Quotes and lists within one another so deep that the renderer would leave out what they hold."""


def _make() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table"])
    markdown.add_render_rule("image", _show_image)
    return markdown


def _show_image(_renderer: object, tokens: Sequence[Token], place: int, *_: object) -> str:
    return str(escape(f"[image: {tokens[place].content}]"))


_MARKDOWN = _make()


@lru_cache(maxsize=2048)
def render(text: str) -> Markup:
    """The text's HTML: a few tags, no attribute but the address of a link, http or mailto."""
    if len(text) > LONGEST or _DEEP.search(text):
        return plain(text)
    try:
        html = _MARKDOWN.render(text)
    except RecursionError:  # nested without end
        return plain(text)
    return Markup(
        nh3.clean(
            html, tags=_TAGS, attributes=_ATTRIBUTES, url_schemes={"http", "https", "mailto"},
            link_rel="noopener noreferrer nofollow", strip_comments=True,
        )
    )  # fmt: skip


def plain(text: str) -> Markup:
    """The text as it is, in a block that keeps its lines."""
    return Markup('<pre class="plain">{}</pre>').format(text)
