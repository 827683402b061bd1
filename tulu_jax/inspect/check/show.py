"""A check's report as tables for the terminal, and as sections of the HTML page."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tulu_jax.console import one_line
from tulu_jax.data.specs import short_name
from tulu_jax.inspect.check.options import KINDS
from tulu_jax.inspect.check.result import BenchmarkOverlap, CheckReport, DatasetFindings

_ID_CHARACTERS = 36
_OVERLAP_COLUMNS = ("benchmark", "items seen", "of", "share", "with answer", "conversations")


def report_tables(report: CheckReport) -> list[Table]:
    """Findings, overlap and examples, in at most 100 columns."""
    tables = [_findings_table(report)]
    if report.benchmarks:
        tables.append(_overlap_table(report))
    return [*tables, _examples_table(report)]


def report_sections(report: CheckReport) -> list[dict[str, Any]]:
    """The report as sections for `write_report`."""
    return [
        _section("Findings", "Shares are of the dataset's conversations.", _findings_rows(report)),
        *_overlap_section(report),
        *_listed_section(report),
        _examples_section(report),
        {
            "title": "Languages",
            "note": "? stands for conversations that are too short, or code, or of no one "
            "language for certain.",
            "blocks": [
                {"kind": "bars", "title": short_name(name), "unit": "conversations",
                 "items": [[language, n] for language, n in found.languages.items()]}
                for name, found in report.datasets.items()
            ],
        },
    ]  # fmt: skip


def _section(title: str, note: str, table: tuple[list[str], list[list[Any]]]) -> dict[str, Any]:
    columns, rows = table
    block = {"kind": "table", "columns": columns, "rows": rows}
    return {"title": title, "note": note, "blocks": [block]}


def _findings_rows(report: CheckReport) -> tuple[list[str], list[list[Any]]]:
    """One row a dataset and kind."""
    columns = ["dataset", "finding", "conversations", "share", "of other datasets", "what it is"]
    rows: list[list[Any]] = []
    for name, found in report.datasets.items():
        for kind, one in found.findings.items():
            share = _percent(one.conversations, found.conversations)
            row = [short_name(name), _title(kind), one.conversations, share, one.elsewhere]
            rows.append([*row, KINDS[kind]])
        if name in report.skipped:
            rows.append([short_name(name), "skipped records", report.skipped[name], "", None,
                         "records that could not be read"])  # fmt: skip
    return columns, rows


def _overlap_section(report: CheckReport) -> list[dict[str, Any]]:
    if not report.benchmarks:
        return []
    columns = ["dataset", *_OVERLAP_COLUMNS]
    rows = _overlap_rows(report)
    blocks: list[dict[str, Any]] = [{"kind": "table", "columns": columns, "rows": rows}]
    for one in report.overlap:
        if one.worst:
            title = f"{short_name(one.dataset)} and {one.benchmark}: the most complete"
            items = [{"label": _where(one, i), "text": w.prompt} for i, w in enumerate(one.worst)]
            blocks.append({"kind": "quotes", "title": title, "items": items})
    return [
        {"title": "Overlap with evaluation sets", "note": _overlap_note(report), "blocks": blocks}
    ]


def _overlap_rows(report: CheckReport) -> list[list[Any]]:
    """One row a dataset and benchmark of which it holds anything."""
    return [
        [short_name(o.dataset), o.benchmark, o.items_seen, o.items,
         _percent(o.items_seen, o.items), o.with_answer, o.conversations]
        for o in report.overlap if o.items_seen
    ]  # fmt: skip


def _listed_section(report: CheckReport) -> list[dict[str, Any]]:
    """What --write_exclude listed."""
    rows = [
        [short_name(name), reason, count]
        for name in report.datasets
        for reason, count in report.excluded(name).items()
    ]
    note = "Listed by --write_exclude, to be left out of training with EXCLUDE."
    table = (["dataset", "reason", "conversations"], rows)
    return [_section("Excluded", note, table)] if rows else []


def _where(one: BenchmarkOverlap, index: int) -> str:
    seen = one.worst[index]
    answer = ", with its answer" if seen.with_answer else ""
    return f"{seen.item} in {seen.conversation}: {seen.coverage:.0%}{answer}"


def _overlap_note(report: CheckReport) -> str:
    words, share = report.options["ngram"], report.options["overlap"]
    clean = sorted(set(report.benchmarks) - {o.benchmark for o in report.overlap if o.items_seen})
    none = f" Nothing of {', '.join(clean)}." if clean else ""
    return (
        f"An item is seen when runs of {words} words that it shares with one conversation cover "
        f"at least {share:.0%} of its words.{none}"
    )


def _examples_section(report: CheckReport) -> dict[str, Any]:
    blocks = [
        {"kind": "table", "title": f"{short_name(name)}: {_title(kind)}", "columns": ["id", "what"],
         "rows": [list(example) for example in one.examples]}
        for name, found in report.datasets.items() for kind, one in found.findings.items()
    ]  # fmt: skip
    note = "The first of each kind, or the furthest off; secrets are masked."
    return {"title": "Examples", "note": note, "blocks": blocks}


def _findings_table(report: CheckReport) -> Table:
    """Kinds down, datasets across would not fit: one line a dataset and kind."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), caption_justify="left")
    table.add_column("dataset", style="bold", no_wrap=True)
    table.add_column("finding")
    for name in ("conversations", "share", "of other sets"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in report.datasets.items():
        table.add_row(short_name(name), Text("all", "dim"), f"{found.conversations:,}", "", "")
        for kind, one in found.findings.items():
            share = _percent(one.conversations, found.conversations)
            elsewhere = "" if one.elsewhere is None else f"{one.elsewhere:,}"
            table.add_row("", _title(kind), f"{one.conversations:,}", share, elsewhere)
        if name in report.skipped:
            table.add_row("", "skipped records", f"{report.skipped[name]:,}", "", "")
        table.add_row("", Text(_languages(found), "dim"), "", "", "")
    table.caption = "of other sets: copies of conversations of another dataset"
    return table


def _overlap_table(report: CheckReport) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), caption_justify="left")
    table.add_column("overlap", style="bold", no_wrap=True)
    for name in _OVERLAP_COLUMNS:
        word = name == "benchmark"
        table.add_column(name, justify="left" if word else "right", no_wrap=word)
    for row in _overlap_rows(report):
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else cell for cell in row))
    table.caption = _overlap_note(report)
    return table


def _examples_table(report: CheckReport) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), caption_justify="left", show_header=False)
    table.add_column("what", style="dim", no_wrap=True)
    table.add_column("conversation", overflow="fold", min_width=18, max_width=_ID_CHARACTERS)
    table.add_column("detail", overflow="ellipsis", no_wrap=True, max_width=40)
    for one in report.overlap:
        for seen in one.worst:
            detail = f"{seen.coverage:.0%} of item {seen.item}: {seen.prompt}"
            table.add_row(one.benchmark, Text(one_line(seen.conversation)), Text(one_line(detail)))
    for found in report.datasets.values():
        for kind, one in found.findings.items():
            for example in one.examples:
                table.add_row(
                    _title(kind), Text(one_line(example.id)), Text(one_line(example.detail))
                )
    return table


def _languages(found: DatasetFindings, most: int = 6) -> str:
    shown = [f"{name} {_percent(n, found.conversations)}" for name, n in found.languages.items()]
    more = f", {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _title(kind: str) -> str:
    return kind.replace("_", " ")


def _percent(part: int, whole: int) -> str:
    """A share as text; small ones keep two digits.

    >>> _percent(1, 3), _percent(1, 2000), _percent(0, 0)
    ('33.3 %', '0.05 %', '0.0 %')
    """
    share = 100 * part / whole if whole else 0.0
    return f"{share:.2f} %" if 0 < share < 0.1 else f"{share:.1f} %"
