"""`tulu report`: every format, and names that would break one."""

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.eval.report.suites import MODELS, SHARES, write_suites
from tests.eval.results import row, write_result
from tulu_jax.cli.main import main

HOSTILE = "a|b_<i>&$%#{}\\^~\x1b[31m\u202e[bold]\n\ud800=1"


@pytest.fixture(scope="module")
def suites(tmp_path_factory):
    return write_suites(tmp_path_factory.mktemp("suites"))


@pytest.fixture
def report(capsys, one_parser):
    def run(*arguments, status=0):
        assert main(["report", *map(str, arguments)]) == status
        return capsys.readouterr()

    return run


def test_terminal(report, suites):
    shown = report(suites, "--base", "llama-7b")
    lines = {line.split("│")[1].strip(): line for line in shown.out.splitlines() if "│" in line}
    run = json.loads((suites / "tulu-7b" / "gsm_cot" / "run.json").read_text())
    base = json.loads((suites / "llama-7b" / "gsm_cot" / "run.json").read_text())
    value, error = 100 * run["value"], 100 * run["stderr"]
    difference = value - 100 * base["value"]
    assert f"{value:.1f} ±{error:.1f}† ({difference:+.1f}*)" in lines["GSM CoT"]
    assert "│ 60 │" in lines["GSM CoT"].replace("  ", "")
    assert "27.0 (n 200)" in lines["GSM CoT"]
    assert "†: statistically tied with the best" in shown.out
    assert "points more or less than llama-7b" in shown.out
    assert shown.err == ""


def test_markdown(report, suites):
    lines = report(suites, "--format", "markdown", "--paper", "none").out.splitlines()
    assert lines[0] == "| benchmark | n | alpaca-7b | llama-7b | tulu-7b |"
    assert lines[1] == "| :-- | --: | --: | --: | --: |"
    cells = [line.split(" | ") for line in lines[2:6]]
    assert [cell[0] for cell in cells] == ["| MMLU 0-shot", "| GSM CoT", "| BBH CoT", "| ToxiGen"]
    assert all(cell[4].startswith("**") and "†**" in cell[4] for cell in cells)
    assert lines[6] == "" and lines[7].startswith("- ±: standard error")


def test_latex(report, suites):
    text = report(suites, "--format", "latex", "--paper", "none", "--base", "llama-7b").out
    assert text.startswith("% needs \\usepackage{booktabs,xcolor}\n\\begin{tabular}{lrrrr}\n")
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 5 and all(line.count("&") == 4 for line in rows)
    assert r"$\pm$" in text and r"$^\dagger$}" in text and r"\textcolor{green!50!black}{(+" in text
    assert text.count("{") == text.count("}")


def test_csv(report, suites):
    text = report(suites, "--format", "csv", "--base", "llama-7b", "--paper", "tulu-7b").out
    records = list(csv.DictReader(io.StringIO(text)))
    ours = [r for r in records if r["source"] == "run"]
    assert len(ours) == len(MODELS) * len(SHARES) and all(r["n"] == "60" for r in ours)
    run = json.loads((suites / "tulu-7b" / "gsm_cot" / "run.json").read_text())
    (one,) = [r for r in ours if (r["model"], r["task"]) == ("tulu-7b", "gsm_cot")]
    assert float(one["value"]) == 100 * run["value"] and one["tied_with_best"] == "True"
    assert float(one["difference_p"]) < 0.05
    paper = [r for r in records if r["source"] == "paper" and r["model"] == "tulu-7b (v1)"]
    assert len(paper) == 13
    assert {r["task"]: r["value"] for r in paper}["average_v1"] == "33.1"


def test_a_narrow_terminal_gets_the_table_in_parts(suites):
    from rich.console import Console

    from eval.report.board import read_board
    from eval.report.formats import terminal
    from eval.report.grid import make_grid

    grid = make_grid(read_board([suites], paper=["tulu-7b"]), layout="models")
    for width in (70, 100, 10_000):
        console = Console(width=width, file=io.StringIO(), record=True)
        tables = list(terminal(grid, width))
        for table in tables:
            console.print(table)
        text = console.export_text()
        assert "…" not in text and max(map(len, text.splitlines())) <= width
        assert sum(len(table.columns) - 1 for table in tables) == len(grid.columns)
    assert len(tables) == 1


@pytest.mark.parametrize("kind", ["terminal", "markdown", "latex", "csv"])
def test_hostile_names(report, tmp_path, kind):
    model = {"name": HOSTILE, "dataset": HOSTILE}
    for name in ("a", "b"):
        model |= {"fingerprint": name}
        written = [row("x", 1), row("y", 0)]
        write_result(tmp_path / name / "t", written, task=f"my_{HOSTILE}", model=model,
                     warnings=[HOSTILE])  # fmt: skip
    shown = report(tmp_path, "--format", kind)
    if kind == "csv":
        records = list(csv.DictReader(io.StringIO(shown.out)))
        assert records[0]["model"] == HOSTILE.replace("\ud800", "\\ud800") + " [a]"
        return
    for text in (shown.out, shown.err):
        assert "\x1b" not in text and "\u202e" not in text
    if kind == "latex":
        (head,) = [line for line in shown.out.splitlines() if line.startswith("benchmark")]
        assert head.count("&") - head.count("\\&") == 4
        assert r"a|b\_\textless{}i\textgreater{}\&\$\%\#\{\}\textbackslash{}" in head
    if kind == "markdown":
        head = shown.out.splitlines()[0]
        assert r"a\|b\_\<i\>\&$%\#{}\\^~␛\[31m⟨U+202E⟩\[bold\]␊" in head


def test_html(report, suites, tmp_path):
    shown = report(suites, "--html", tmp_path / "new" / "report.html", "--format", "csv")
    assert shown.err == f"{tmp_path / 'new' / 'report.html'}: open it with a browser\n"
    assert shown.out.startswith("model,dataset,")
    page = (tmp_path / "new" / "report.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") and "tulu-7b" in page
    refused = report(suites, "--html", suites / "tulu-7b" / "gsm_cot" / "run.json", status=2)
    assert "--html would replace a file of a result - at" in refused.err
    report(suites / "tulu-7b" / "gsm_cot")  # is as it was


def test_results_that_cannot_be_read(report, suites, tmp_path):
    folder = write_result(tmp_path / "m" / "gsm_cot", [row("x", 1)])
    (folder / "predictions.jsonl").write_text('{"id": "x", "corr')
    assert (
        "tulu report: predictions.jsonl is cut off in its last line - got"
        in report(tmp_path, status=2).err
    )
    assert "the results' folder is not there" in report(tmp_path / "none", status=2).err
    assert "no result is of the base model - got 'x'" in report(suites, "--base", "x", status=2).err
    assert "the paper has no row of this name" in report(suites, "--paper", "zzz", status=2).err


def test_warnings_do_not_get_into_what_is_piped(report, tmp_path):
    write_result(tmp_path / "gsm_cot", [row("x", 1)], warnings=["cut prompts"])
    shown = report(tmp_path, "--format", "csv")
    assert "cut prompts" in shown.err and "cut prompts" not in shown.out


TEXTS = ["", " ", "nothing/here", "junk", "empty", "gs://bucket/x", "/dev/null", "[1]", "-1",
         "\x00", "\ud800", "--", "é 😀,b [1]", "~nobody_of_that_name/x"]  # fmt: skip


@pytest.mark.parametrize("flag", ["", "--base", "--paper", "--rows", "--format", "--html"])
def test_wrong_values_end_with_words(capsys, one_parser, tmp_path, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    write_result(tmp_path / "here" / "gsm_cot", [row("x", 1), row("y", 0)])
    (tmp_path / "junk").write_bytes(bytes(range(256)))
    (tmp_path / "empty").mkdir()
    found = set()
    for text in TEXTS:
        given = ["here", f"{flag}={text}"] if flag else [text]
        try:
            found.add(main(["report", *given]))
        except SystemExit as end:
            found.add(end.code)
        said = capsys.readouterr()
        assert "Traceback" not in said.err and (said.out or said.err), text
    assert 2 in found and found <= {0, 2}


PAGE = Path(__file__).parent.parent.parent / "docs" / "report.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_docs_show_what_is_printed(report, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fences = [found.groups() for found in FENCE.finditer(PAGE.read_text("utf-8"))]
    assert [language for language, _ in fences] == ["python", *["sh", ""] * 2, "sh", "sh"]
    exec(fences[0][1], {})
    shown = [(fences[1][1], fences[2][1]), (fences[3][1], fences[4][1]), (fences[5][1], None)]
    for command, printed in shown:
        assert main(shlex.split(command, comments=True)[1:]) == 0
        found = capsys.readouterr().out.replace(str(tmp_path), "...")
        if printed is not None:
            assert [line.rstrip() for line in found.splitlines()] == printed.splitlines()
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
