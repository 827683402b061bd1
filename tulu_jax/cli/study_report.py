"""`tulu study report`: a study's tables and findings, as text and as a page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.study.cells import Table
    from eval.study.results import Findings
    from eval.study.tables import Link
    from tulu_jax.places import Place

PAGE, TEXT, LATEX, NUMBERS = "report.html", "report.md", "report.tex", "numbers.csv"
"""What `tulu study run` leaves in the study's folder."""


def report_study(table: Table, args: argparse.Namespace) -> int:
    """Prints the report, writes the page; the exit status.

    Raises: DataError where nothing is done yet, or results cannot be read.
    """
    from eval.study.page import write_html
    from eval.study.report import as_csv, latex, markdown, sections, terminal
    from eval.study.results import read_study
    from tulu_jax.cli.study import console
    from tulu_jax.console import plain_console, print_line

    found = read_study(table)
    place = _from(table, Path.cwd(), linked=not args.no_links)
    if args.format == "terminal":
        shown = console()
        plain = _absolute(table) if shown.is_terminal and not args.no_links else _nowhere
        for part in terminal(sections(found, plain), shown.width):
            shown.print(part)
    elif args.format == "csv":
        sys.stdout.write(as_csv(found))
    else:
        made = sections(found, place)
        sys.stdout.write(markdown(found, made) if args.format == "markdown" else latex(made))
    sys.stdout.flush()
    if args.html:
        place = _from(table, args.html.parent, linked=not args.no_links)
        path = write_html(args.html, found, sections(found, place))
        print_line(plain_console(stderr=True), f"{path}: open it with a browser")
    return 0


def write_reports(table: Table) -> Place:
    """The page in the study's folder, beside it the report as Markdown, LaTeX and numbers.

    Raises: as `report_study`.
    """
    from eval.study.page import write_html
    from eval.study.report import as_csv, latex, markdown, sections
    from eval.study.results import read_study
    from tulu_jax.files import write_whole
    from tulu_jax.places import Address, upload

    found: Findings = read_study(table)
    made = sections(found, _from(table, table.root, linked=True))
    write_whole(table.root / TEXT, markdown(found, made))
    write_whole(table.root / LATEX, latex(made))
    write_whole(table.root / NUMBERS, as_csv(found))
    write_html(table.root / PAGE, found, made)
    if isinstance(table.home, Address):
        for name in (PAGE, TEXT, LATEX, NUMBERS):
            upload(table.root / name, table.home / name)
    return table.home / PAGE


def _from(table: Table, folder: Path, *, linked: bool) -> Link:
    """Addresses of the study's files as seen from a folder."""
    from eval.study.tables import within

    if not linked:
        return _nowhere
    way = os.path.relpath(table.root, folder)
    return lambda path: within(os.path.normpath(os.path.join(way, path)))


def _absolute(table: Table) -> Link:
    return lambda path: (table.root / path).as_uri()


def _nowhere(path: str) -> None:
    """No address."""
