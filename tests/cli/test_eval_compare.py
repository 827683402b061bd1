"""`tulu eval compare`: what it prints and writes."""

import argparse
import json
import math

import pytest

from tests.eval.results import row, write_result
from tulu_jax.cli.eval_compare import add_arguments, p_text, run
from tulu_jax.errors import DataError


def rows(values):
    return [row(f"q{i}", value) for i, value in enumerate(values)]


@pytest.fixture
def write(tmp_path):
    def make(name, written, **options):
        return write_result(tmp_path / name, written, **{"model": name, **options})

    return make


def command(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_command_prints_the_table_and_the_flips(write, tmp_path, capsys):
    hostile = "\x1b[31m[bold]red[/bold] \u202e" + "x" * 5000 + "\ud800"
    a = [row("q0", 0, output="\ud800 wrong"), row("q1", 1), *rows([1] * 9)[2:]]
    b = [row("q0", 1, output=hostile, prediction=None), row("q1", 0), *rows([1] * 9)[2:]]
    out = tmp_path / "new" / "compared.json"
    assert command(write("a", a), write("b", b), "--json", out) == 0
    shown = capsys.readouterr().out
    assert "gsm_cot" in shown and "1.000 m" in shown and "+0.0 ±" in shown
    assert "gsm_cot: better in B, 1 of 1: q0" in shown and "worse in B, 1 of 1: q1" in shown
    assert "A 0, answer 0: \\ud800 wrong" in shown
    assert "B 1, answer null: ␛[31m[bold]red[/bold] ⟨U+202E⟩xxx" in shown
    assert "\x1b[31m" not in shown and "\u202e" not in shown
    assert max(map(len, shown.splitlines())) < 800
    saved = json.loads(out.read_text())
    assert saved["tasks"][0]["improved"] == ["q0"] and saved["tasks"][0]["worsened"] == ["q1"]
    assert command(tmp_path / "a", tmp_path / "b", "--show", 0) == 0
    assert "better in B, 1" not in capsys.readouterr().out


def test_command_names_a_place_it_cannot_write(write, tmp_path):
    a, b = write("a", rows([1, 0])), write("b", rows([1, 1]))
    with pytest.raises(DataError, match=r"cannot write the comparison - got .* - move away"):
        command(a, b, "--json", tmp_path)


def test_command_does_not_replace_results(write):
    a, b = write("a", rows([1, 0])), write("b", rows([1, 1]))
    with pytest.raises(DataError, match=r"--json would replace a file of a result - at .*run.json"):
        command(a, b, "--json", a / "run.json")
    assert "task" in json.loads((a / "run.json").read_text())


def test_p_values_as_text():
    assert [p_text(p) for p in (1, 0.0499, 0.001, 0.0009, 0, math.nan)] == [
        "1.000", "0.050", "0.001", "<0.001", "<0.001", "–"]  # fmt: skip
