"""One self-contained page: template, style, scripts and data put together, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tulu_jax import __version__
from tulu_jax.errors import DataError
from tulu_jax.files import advice, write_whole
from tulu_jax.inspect.html.sections import Section, check_sections

HERE = Path(__file__).parent
FRAME = tuple(HERE / name for name in ("base.js", "text.js", "list.js", "charts.js"))
"""The scripts that every page begins with."""

SHELL = HERE / "shell.js"
"""The one that every page ends with."""

_OWN = ("tokens.js", "overview.js", "browse.js", "app.js")
SCRIPTS = (*FRAME, *(HERE / name for name in _OWN), SHELL)
"""The scripts of a mixture's page."""

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_report(
    path: str | Path,
    *,
    title: str,
    settings: Mapping[str, str] | None = None,
    sections: Sequence[Section] = (),
    data: Mapping[str, Any] | None = None,
) -> Path:
    """The report at `path`: a page that needs neither server nor network.

    `settings` (label to text) stand under the title; each of `sections` is a card of the tab
    "Checks"; `data`, from `report_data`, fills the other tabs. What is missing is not shown.

    Raises: DataError for a section that cannot be shown, or a file that cannot be written.
    """
    check_sections(sections)
    content = {"sections": list(sections), **(data or {})}
    return write_page(Path(path), page_data(title, settings or {}, content))


def page_data(
    title: str, settings: Mapping[str, str], content: Mapping[str, Any]
) -> dict[str, Any]:
    """What a page shows: its title, the settings under it, and the content of its tabs."""
    lines = [[label, str(text)] for label, text in settings.items()]
    return {"title": title, "version": __version__, "settings": lines, **content}


def write_page(path: Path, data: Mapping[str, Any], **parts: Any) -> Path:
    """The page of `data` at `path`; `parts` are as `render_page` takes them.

    Raises: DataError for a file that cannot be written.
    """
    try:
        write_whole(path, render_page(data, **parts))
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError("cannot write the report", got=got, at=path, do=advice(error)) from error
    return path


def render_page(
    data: Mapping[str, Any],
    *,
    kind: str = "tulu data",
    scripts: Sequence[Path] = SCRIPTS,
    styles: Sequence[Path] = (HERE / "report.css",),
) -> str:
    """The page's HTML. The data is text to it, never markup or code.

    Args:
      data: from `page_data`; what its scripts show.
      kind: what stands behind the title in a browser's tab.
      scripts: joined into one, in this order.
      styles: the same.
    """
    style = "\n".join(path.read_text(encoding="utf-8") for path in styles)
    joined = "\n".join(path.read_text(encoding="utf-8") for path in scripts)
    script = f'"use strict";\n(() => {{\n{joined}\n}})();\n'
    parts = {
        "policy": f"default-src 'none'; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'",
        "title": html.escape(f"{data['title']} - {kind}"),
        "style": style,
        "script": script,
        "data": embed_json(data),
    }
    template = (HERE / "report.html").read_text(encoding="utf-8")
    pieces = template.split("%%")  # text, name, text, name, ... text
    return "".join(parts[p] if i % 2 else p for i, p in enumerate(pieces))


def embed_json(value: Any) -> str:
    r"""JSON that may stand inside a script element: nothing in it can end the element.

    >>> embed_json({"a": "</script>"})
    '{"a":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES)


def _digest(text: str) -> str:
    """The hash by which the page's policy knows its own style and script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
