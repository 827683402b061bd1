"""Human evaluation in a study: the step that makes it, and people's answers in the report."""

import json
import sys

import pytest

from eval.study.people import database
from eval.study.report import sections
from eval.study.results import read_study
from eval.study.state import state_of
from eval.study.study import HumanEvaluation
from eval.study.tables import within
from eval.study.workflow import snakefile, write_workflow
from tests.eval.study.finished_studies import finish, small_table
from tests.eval.study.small_studies import table
from tulu_jax.cli.main import main, make_parser
from tulu_jax.errors import ConfigError, TuluError

PAIR = ("small+dolly", "small")


def people(**fields):
    return HumanEvaluation(**{"name": "people", "pairs": [PAIR], "task": "gsm_cot", **fields})


def test_a_pair_is_made_of_the_answers_of_two_cells(tmp_path):
    found = table(tmp_path, people=(people(groups=("a b", "c"), limit=9),))
    (one,) = found.people
    cells = {cell.name: cell for cell in found.cells}
    evaluations = tuple(cells[name].of("evaluate")[0] for name in PAIR)
    assert one.pairs == [tuple(cells[name] for name in PAIR)]
    assert one.step.parents == evaluations and found.steps[-1] is one.step
    tuned, plain = (f"{step.folder}/results/gsm_cot" for step in evaluations)
    assert one.step.argv == (
        "annotate", "make", "--db", f"annotate/{one.step.key}/study.db", "--if_absent",
        "--name", "people", "--annotators", "2", "--overlap", "0.2", "--group", "a b",
        "--group", "c", "--limit", "9", "--predictions", tuned, plain, "--names", *PAIR,
    )  # fmt: skip
    make_parser().parse_args(one.step.argv)
    assert f"rule annotate_{one.step.key}:" in snakefile(found)


def test_pairs_share_what_both_need_and_depend_on_what_is_asked(tmp_path):
    pairs = [PAIR, ("small+dolly", "large")]
    (one,) = table(tmp_path, people=(people(pairs=pairs),)).people
    assert len(one.step.parents) == 3 and one.step.argv.count("--predictions") == 2
    keys = {
        table(tmp_path, people=(people(**fields),)).people[0].step.key
        for fields in ({}, {"pairs": pairs}, {"task": "mmlu_0shot"}, {"limit": 3}, {"name": "x"},
                       {"groups": ("a",)}, {"annotators": 3}, {"overlap": 0.5})
    }  # fmt: skip
    assert len(keys) == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": []}, "HumanEvaluation.pairs is empty - at 'people' - expected one pair"),
        (
            {"pairs": [("a",)]},
            r"people compare two cells - got \['a'\] at HumanEvaluation",
        ),
        ({"pairs": [("a", "a")]}, r"people compare two cells - got \['a', 'a'\]"),
        ({"pairs": [PAIR, PAIR[::-1]]}, "people compare a pair twice - got .* leave one out"),
        ({"pairs": "ab"}, "HumanEvaluation.pairs is not a list, each item a list"),
        ({"task": "gsm"}, "unknown task - got 'gsm'"),
        ({"overlap": 2.0}, "HumanEvaluation.overlap is out of range"),
        (
            {"pairs": [("small+doly", "small")]},
            "a cell that the study lacks - got 'small.doly' at HumanEvaluation 'people' - expected "
            ".*small.dolly",
        ),
        ({"task": "bbh_cot"}, "answers that nobody asks for - got bbh_cot of small.dolly at Human"),
    ],
)
def test_mistakes_are_named(tmp_path, fields, message):
    with pytest.raises((ConfigError, TuluError), match=message):
        table(tmp_path, people=(people(**fields),))


def test_it_may_be_submitted(tmp_path):
    found = table(tmp_path, people=(people(),), submit={"annotate": "x {topology}"})
    write_workflow(found)
    said = json.loads((found.root / found.steps[-1].folder / "step.json").read_text())
    assert said["program"] == ["x", "local"]


def test_what_people_answered_is_in_the_report(tmp_path, monkeypatch, capsys):
    pytest.importorskip("argon2", reason="the extra annotate is not installed")
    found = finish(small_table(tmp_path, people=(people(),)), only=PAIR)
    step = found.people[0].step
    monkeypatch.chdir(found.root)
    for said in ("60 instances, 12 of them for 2 people", "there is a study already"):
        assert main(list(step.argv)) == 0
        assert said in capsys.readouterr().out
    (found.root / step.folder / "done.json").write_text("{}")
    assert state_of(found.root, step) == "done"
    assert "human" not in [one.name for one in sections(read_study(found), within)]
    sheet = tmp_path / "sheet.jsonl"
    sheet.write_text(json.dumps(answer(found)) + "\n")
    assert main(["annotate", "import", str(sheet), "--db", database(step)]) == 0
    (one,) = (one for one in sections(read_study(found), within) if one.name == "human")
    shown = {name: [cell.text for cell in cells] for name, cells in one.tables[0].rows}
    assert shown["small+dolly against small"][1].startswith("100.0")
    assert shown["small against small+dolly"][1].startswith("0.0")
    assert one.text == ("1 annotations of 1 people.",)
    monkeypatch.setitem(sys.modules, "eval.annotate.store.annotations", None)
    with pytest.raises(ConfigError, match="packages of human evaluation are missing"):
        sections(read_study(found), within)


def answer(found):
    """Somebody's, about the first instance."""
    told = {"instance_index": 0, "evaluator": "ada", "preference": "a-is-better",
            "timestamp": 1700000000}  # fmt: skip
    cells = {cell.name: cell for cell in found.cells}
    for side, name in zip("ab", PAIR, strict=True):
        results = found.root / cells[name].of("evaluate")[0].folder / "results"
        row = json.loads((results / "gsm_cot" / "predictions.jsonl").read_text().splitlines()[0])
        told |= {
            "instance_id": row["id"], "prompt": row["prompt"], f"model_{side}": name,
            f"completion_{side}": row["output"],
            f"completion_{side}_is_acceptable": "yes" if side == "a" else "no",
        }  # fmt: skip
    return told
