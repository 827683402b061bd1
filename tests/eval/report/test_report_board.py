"""What stands in the tables: numbers, ties, differences, and what is said about them."""

import doctest
import json
import shutil

import pytest

from eval.harness.compare import compare_results
from eval.report import grid
from eval.report.board import read_board, suite_folders
from eval.report.grid import make_grid
from tests.eval.report.suites import MODELS, SHARES, rows, write_suites
from tests.eval.results import row, write_result
from tulu_jax.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def suites(tmp_path_factory):
    return write_suites(tmp_path_factory.mktemp("suites"))


def named(board, name):
    return next(model for model in board.models if model.name == name)


def test_numbers_are_those_of_the_runs(suites):
    board = read_board([suites])
    assert [m.name for m in board.models] == sorted(MODELS)
    assert board.tasks == ["mmlu_0shot", "gsm_cot", "bbh_cot", "toxigen"]
    for model in board.models:
        for task in SHARES:
            run = json.loads((suites / model.name / task / "run.json").read_text())
            number = model.numbers[task]
            assert (number.value, number.stderr, number.n) == (
                100 * run["value"], 100 * run["stderr"], 60)  # fmt: skip
    assert board.warnings == []


def test_the_tied_are_those_whose_pairs_do_not_tell_them_apart(suites):
    board = read_board([suites])
    tulu, alpaca = named(board, "tulu-7b"), named(board, "alpaca-7b")
    assert tulu.tied == set(SHARES)
    for task in SHARES:
        pair = compare_results(tulu.results[task], alpaca.results[task])
        base = compare_results(tulu.results[task], named(board, "llama-7b").results[task])
        holm = 2 * pair.p if pair.p < base.p else max(pair.p, 2 * base.p)
        assert (task in alpaca.tied) == (holm > 0.05)
    assert not named(board, "llama-7b").tied
    (alone,) = read_board([suites / "tulu-7b"]).models
    assert not alone.tied


def test_lower_is_better_where_the_run_says_so(suites):
    board = read_board([suites], base="llama-7b")
    tulu = named(board, "tulu-7b")
    assert tulu.numbers["toxigen"].value < named(board, "llama-7b").numbers["toxigen"].value
    assert tulu.differences["toxigen"].value < 0 and tulu.differences["toxigen"].good
    assert tulu.differences["gsm_cot"].value > 0 and tulu.differences["gsm_cot"].good
    assert tulu.differences["gsm_cot"].found
    assert not named(board, "llama-7b").differences
    assert "lower is better: ToxiGen" in make_grid(board).notes


def test_differences_are_adjusted_over_the_tasks(suites):
    board = read_board([suites], base="llama-7b")
    alpaca, base = named(board, "alpaca-7b"), named(board, "llama-7b")
    p = {t: compare_results(base.results[t], alpaca.results[t]).p for t in SHARES}
    first = min(p, key=lambda task: p[task])
    assert alpaca.differences[first].p == pytest.approx(4 * p[first])


def test_one_model_in_folders_of_its_own_is_one(suites):
    folders = [suites / "tulu-7b" / task for task in ("gsm_cot", "bbh_cot")]
    (model,) = read_board(folders).models
    assert sorted(model.results) == ["bbh_cot", "gsm_cot"]


def test_two_of_one_name_are_told_apart(tmp_path):
    for folder, fingerprint in (("one", "a"), ("two", "b"), ("three", "a")):
        model = {"name": "m", "fingerprint": fingerprint}
        run = {"compat": "paper"} if folder == "three" else {}
        write_result(tmp_path / folder / "gsm_cot", rows("gsm_cot", 0), model=model, **run)
    names = [m.name for m in read_board([tmp_path / n for n in ("one", "two", "three")]).models]
    assert names == ["m [one]", "m [two]", "m [three]"]
    board = read_board([tmp_path])
    assert board.warnings == [
        "gsm_cot: run with other --compat - m [one]: fixed, m [three]: paper, m [two]: fixed"
    ]
    model = {"name": "m", "fingerprint": "c"}
    write_result(tmp_path / "deep" / "one" / "gsm_cot", rows("gsm_cot", 0), model=model)
    names = [m.name for m in read_board([tmp_path / "one", tmp_path / "deep"]).models]
    assert names == [f"m [{tmp_path / 'one'}]", f"m [{tmp_path / 'deep' / 'one'}]"]


def test_averages_need_every_task(tmp_path):
    tasks = ("mmlu_0shot", "gsm_cot", "bbh_cot", "tydiqa_goldp_1shot", "codex_eval_temp_0.8",
             "alpaca_eval")  # fmt: skip
    for name, right in (("base", 2), ("tuned", 7)):
        for i, task in enumerate(tasks):
            written = [row(f"q{n}", int(n < right + i)) for n in range(16)]
            write_result(tmp_path / name / task, written, task=task, model=name, metric="m")
    board = read_board([tmp_path], base="base", paper=["none"])
    base, tuned = board.models
    assert base.numbers["average_v2"].value == pytest.approx(100 * (2 + 2.5) / 16)
    assert base.numbers["average_v2"].n == 96 and "average_v1" not in base.numbers
    assert board.averages == ["average_v2"]
    difference = tuned.differences["average_v2"]
    assert difference.value == pytest.approx(100 * 5 / 16) and difference.found
    paired = [d.stderr for t, d in tuned.differences.items() if t in tasks]
    assert difference.stderr == pytest.approx(sum(e**2 for e in paired) ** 0.5 / 6)
    shutil.rmtree(tmp_path / "tuned" / "gsm_cot")
    board = read_board([tmp_path], base="base", paper=["none"])
    assert "average_v2" not in board.models[1].numbers
    assert "average v2: not without GSM CoT" in make_grid(board).notes


def test_what_makes_numbers_hard_to_compare_is_said(tmp_path):
    write_result(tmp_path / "a" / "g", [row("x", 1), row("y", 0)], model="a", data_sha256="1",
                 quirks={"gsm_commas": "paper"}, warnings=["200 prompts were cut"])  # fmt: skip
    written = [row("y", 1), row("z", 0), row("w", 0, error="gone")]
    write_result(tmp_path / "b" / "g", written,
                 model="b", data_sha256="2", quirks={"gsm_commas": "fixed"})  # fmt: skip
    (write_result(tmp_path / "b" / "m", [], task="mmlu_0shot") / "run.json").unlink()
    warnings = "\n".join(read_board([tmp_path]).warnings)
    assert "gsm_cot: a: 200 prompts were cut" in warnings
    assert "gsm_cot: b: 1 of 3 failed in the machinery and have no score" in warnings
    assert "are compared on the 1 instances of both" in warnings
    assert "gsm_cot: run with another quirk gsm_commas - a: paper, b: fixed" in warnings
    assert "gsm_cot: run with other data - a: 1, b: 2" in warnings
    assert "m is not finished (run.json is missing): left out" in warnings


def test_results_without_common_instances_are_not_paired(tmp_path):
    write_result(tmp_path / "a" / "g", [row(f"x{i}", int(i < 9)) for i in range(10)], model="a")
    write_result(tmp_path / "b" / "g", [row(f"y{i}", int(i < 2)) for i in range(10)], model="b")
    board = read_board([tmp_path], base="b")
    assert "gsm_cot" in board.models[0].tied and "gsm_cot" not in board.models[1].tied
    assert board.models[0].differences["gsm_cot"].found
    assert "gsm_cot: a and b are not paired: gsm_cot: no instance has a score in both" in "\n".join(
        board.warnings
    )


def test_what_has_no_score_is_a_dash(tmp_path):
    unscored = [row("x", 0, correct=None)]
    write_result(tmp_path / "a" / "t", unscored, task="toxigen", model="a", value=None)
    write_result(tmp_path / "b" / "t", [row("x", 0)], task="toxigen", model="b")
    table = make_grid(read_board([tmp_path], paper=["none"]))
    ((title, cells),) = table.rows
    assert title == "ToxiGen" and [cell.text for cell in cells] == ["–", "0.0"]


def test_examples_of_the_grid():
    found = doctest.testmod(grid)
    assert found.failed == 0 and found.attempted > 0


def test_layouts(suites):
    board = read_board([suites], paper=["tulu-7b"])
    by_benchmark = make_grid(board)
    assert by_benchmark.by_row and by_benchmark.columns[:3] == sorted(MODELS)
    assert by_benchmark.columns[3:] == ["paper: tulu-7b (v1)", "paper: Tulu 7B (v2)"]
    by_model = make_grid(board, layout="models")
    assert not by_model.by_row and by_model.columns[0] == "MMLU 0-shot"
    assert [name for name, _ in by_model.rows][:3] == sorted(MODELS)
    turned = [list(cells) for cells in zip(*(c for _, c in by_model.rows), strict=True)]
    assert [cells for _, cells in by_benchmark.rows] == turned
    many = make_grid(read_board([suites], paper=["all"]))
    assert not many.by_row and len(many.rows) > 30


def test_each_number_has_its_n(suites):
    table = make_grid(read_board([suites], paper=["tulu-7b"]))
    counts = dict(zip((title for title, _ in table.rows), table.counts, strict=True))
    assert counts["MMLU 0-shot"] == 60 and counts["average v2"] == 17_191
    cells = dict(table.rows)["MMLU 0-shot"]
    own = [cell.text.partition("(")[2] for cell in cells]
    assert own == ["", "", "", "n 14,042)", "n 14,042)"]
    for count, (_, cells) in zip(table.counts, table.rows, strict=True):
        assert all(c.n is not None or count is not None for c in cells if c.number is not None)


def test_models_by_their_dataset(tmp_path):
    for name, dataset in (("a", "tulu_dolly"), ("b", "my own")):
        model = {"name": name, "dataset": dataset}
        write_result(tmp_path / name / "g", rows("gsm_cot", 0), model=model)
    table = make_grid(read_board([tmp_path]), by_dataset=True)
    assert table.columns == ["Dolly", "my own", "paper: Dolly"]
    write_result(tmp_path / "c" / "g", rows("gsm_cot", 0), model="c")
    with pytest.raises(DataError, match="a model does not say what it was trained on - got 'c' at "
                       r".*expected a dataset in run.json, model - leave --datasets"):  # fmt: skip
        make_grid(read_board([tmp_path]), by_dataset=True)


def test_folders(suites, tmp_path):
    assert suite_folders(suites) == [suites / name for name in sorted(MODELS)]
    assert suite_folders(suites / "tulu-7b") == [suites / "tulu-7b"]
    assert suite_folders(suites / "tulu-7b" / "gsm_cot") == [suites / "tulu-7b" / "gsm_cot"]
    with pytest.raises(DataError, match="no results lie here - at"):
        read_board([tmp_path])
    with pytest.raises(DataError, match=r"one result is named twice - at .*gsm_cot - name it once"):
        read_board([suites / "tulu-7b" / "gsm_cot", suites / "tulu-7b" / "gsm_cot"])


def test_a_base_that_is_not_there(suites):
    message = (r"no result is of the base model - got 'lama-7b' - expected one of alpaca-7b, "
               r"llama-7b, tulu-7b - did you mean llama-7b\?")  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        read_board([suites], base="lama-7b")
