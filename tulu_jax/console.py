"""The one way to the terminal: what is printed comes out as it is.

rich reads `[x]` in a text as a style, `:x:` as an emoji, and turns tabs into spaces. In our own
sentences that eats the brackets of a path; in what a model wrote it changes an answer. So nothing
that is printed has markup: colour is given beside the text, by `style=` or `rich.text.Text`.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

WARNING = "bold yellow"
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


def plain_console(**options: Any) -> Console:
    """A rich console, for our own sentences and tables, in which text means itself.

    Args:
      options: as `rich.console.Console` takes them.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


def print_line(console: Console, text: str, style: str = "") -> None:
    """Prints a text as it is, whatever the console makes of markup otherwise."""
    console.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def task_name() -> TextColumn:
    """The column of a progress bar that names the task, without markup."""
    from rich.progress import TextColumn

    return TextColumn("{task.description}", markup=False)


def show_bytes(console: Console) -> Progress:
    """Progress bars of what is copied: bytes and speed."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (task_name(), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console)


def write_verbatim(text: str, *, end: str = "\n", file: IO[str] | None = None) -> None:
    """Writes what a user or a model wrote, character by character, and flushes."""
    print(text, end=end, file=file, flush=True)


def visible(text: str) -> str:
    r"""The text with control characters by name, so that none reaches the terminal.

    >>> visible("a\x1b[31mb\x9bc" + chr(0x202E))
    'a␛[31mb⟨U+009B⟩c⟨U+202E⟩'
    """
    return _CONTROL.sub(lambda found: _name(ord(found.group())), text)


def one_line(text: str, most: int = 60) -> str:
    r"""The same on one line of at most so many characters: for ids and names in tables.

    >>> one_line("a\tb\nc"), one_line("x" * 99, most=5)
    ('a␉b␊c', 'xxxx…')
    """
    shown = visible(text[: most + 1]).replace("\t", "␉").replace("\n", "␊")
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _name(code: int) -> str:
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def accept_every_character() -> None:
    r"""Makes standard output write what its encoding lacks as an escape, like Python's stderr.

    With ASCII a heart then comes as \u2665, where there was a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_quietly() -> None:
    """Points standard output nowhere, once its reader is gone, so that nothing else complains."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a file, as in a notebook
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def leave_out_closed_loops() -> None:
    """Keeps from standard error what libraries print of a save that failed and was told of.

    The threads that wrote its other arrays still answer to an event loop that is closed by then:
    one traceback an array (Orbax 0.12.8, TensorStore 0.1.86).
    """
    shown = sys.unraisablehook

    def show(dropped: sys.UnraisableHookArgs) -> None:
        closed = "Event loop is closed"
        if not (isinstance(dropped.exc_value, RuntimeError) and str(dropped.exc_value) == closed):
            shown(dropped)

    sys.unraisablehook = show
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
