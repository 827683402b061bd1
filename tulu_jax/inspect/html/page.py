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
SCRIPTS = ("base.js", "charts.js", "tokens.js", "overview.js", "browse.js", "app.js")
"""The page's scripts in the order in which they run, joined into one."""

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
    payload = {
        "title": title,
        "version": __version__,
        "settings": [[label, str(text)] for label, text in (settings or {}).items()],
        "sections": list(sections),
        **(data or {}),
    }
    path = Path(path)
    try:
        write_whole(path, render_page(payload))
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError("cannot write the report", got=got, at=path, do=advice(error)) from error
    return path


def render_page(payload: Mapping[str, Any]) -> str:
    """The page's HTML. The payload is text to it, never markup or code."""
    style = (HERE / "report.css").read_text(encoding="utf-8")
    scripts = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{scripts}\n}})();\n'
    parts = {
        "policy": f"default-src 'none'; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'",
        "title": html.escape(f"{payload['title']} - tulu data"),
        "style": style,
        "script": script,
        "data": embed_json(payload),
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
