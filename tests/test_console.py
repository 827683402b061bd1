"""What is printed comes out as it is, whatever is in it and wherever it goes."""

import ast
import io
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.table import Table

from tulu_jax.console import (
    leave_out_closed_loops,
    plain_console,
    print_line,
    task_name,
    write_verbatim,
)

ROOT = Path(__file__).parent.parent
HARD = "d[1:x:2] [bold]b[/] [/tmp/x] :smile: [a\\] 12.5 'q'"
"""What rich would read as styles, emoji, a closing tag that nothing opened, and numbers."""
TAG = re.compile(r"\[(/\]|/?(not )?(bold|dim|italic|red|green|yellow|cyan|magenta|reverse)\b)")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_plain_console_prints_text_as_it_is(terminal):
    out = io.StringIO()
    console = plain_console(file=out, width=200, force_terminal=terminal)
    console.print(HARD)
    table = Table("a", title=HARD)
    table.add_row(HARD)
    console.print(table)
    assert out.getvalue().count(HARD) == 3


def test_a_line_is_plain_on_any_console():
    out = io.StringIO()
    print_line(Console(file=out, width=20), HARD, "bold")
    assert out.getvalue() == HARD + "\n"


def test_a_bar_names_its_task_as_it_is():
    from rich.progress import Progress

    out = io.StringIO()
    with Progress(task_name(), console=plain_console(file=out, width=200)) as progress:
        progress.add_task(HARD)
    assert HARD in out.getvalue()


def test_verbatim_text_keeps_tabs_and_controls(capsys):
    text = "\tif x:\r\n\t\td[1:x:2]\x07 :smile:  \n"
    write_verbatim(text)
    assert capsys.readouterr().out == text + "\n"


def files():
    return [p for room in ("tulu_jax", "tasks") for p in sorted((ROOT / room).rglob("*.py"))]


def test_no_text_of_ours_has_markup_and_no_console_reads_it():
    """A console with markup would read it in paths and answers too."""
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not TAG.search(node.value), f"{path}: style={node.value!r} instead"
            if isinstance(node, ast.Call) and path.name != "console.py":
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name != "Console", f"{path}:{node.lineno}: use plain_console"
                column = name == "TextColumn" and ast.unparse(node).startswith("TextColumn('{")
                assert not column or "fields[stage]" in ast.unparse(node), f"{path}: task_name()"


def python(code, **environment):
    words = [sys.executable, "-c", f"import sys\nfrom tulu_jax import console\n{code}"]
    return subprocess.run(words, capture_output=True, cwd=ROOT, env=environment, check=False)


def test_ascii_output_gets_escapes_and_no_traceback():
    code = "console.accept_every_character(); console.write_verbatim('a\u2665\\udc80')"
    found = python(code, PYTHONIOENCODING="ascii")
    assert (found.stdout, found.returncode) == (b"a\\u2665\\udc80\n", 0)


def test_a_reader_that_has_gone_is_no_fault_of_ours():
    code = (
        "import os\nread, write = os.pipe()\nos.dup2(write, 1); os.close(write); os.close(read)\n"
        "try:\n    console.write_verbatim('x')\nexcept BrokenPipeError:\n"
        "    console.end_quietly()\nprint('more', flush=True)"
    )
    found = python(code)
    assert (found.stderr, found.returncode) == (b"", 0)


def test_tracebacks_of_a_closed_loop_are_left_out(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: shown.append(str(dropped.exc_value)))
    level = logging.getLogger("asyncio").level
    try:
        leave_out_closed_loops()
        for error in (RuntimeError("Event loop is closed"), RuntimeError("another")):
            sys.unraisablehook(SimpleNamespace(exc_value=error))  # type: ignore[arg-type]
    finally:
        logging.getLogger("asyncio").setLevel(level)
    assert shown == ["another"]
