"""The page: what its data says, how large it is, and that nothing in it becomes markup."""

import json
import re

import pytest

from eval.report.board import read_board
from eval.report.page import write_html
from eval.report.sample import LONGEST_OUTPUT
from tests.eval.report.hostile import FEW, HALF, LONG, MARKUP, write_hostile
from tests.eval.report.suites import MODELS, SHARES, rows, values, write_suites
from tests.eval.results import row, write_result
from tulu_jax.errors import DataError


def payload(path):
    text = path.read_text("utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(data)


@pytest.fixture(scope="module")
def suites(tmp_path_factory):
    return write_suites(tmp_path_factory.mktemp("suites"))


@pytest.fixture(scope="module")
def data(suites, tmp_path_factory):
    board = read_board([suites], base="llama-7b")
    return payload(write_html(tmp_path_factory.mktemp("page") / "report.html", board))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_hostile(tmp_path_factory.mktemp("hostile"))
    return write_html(folder / "report.html", read_board([folder]))


def test_the_table_holds_what_the_runs_say(data, suites):
    assert data["models"] == sorted(MODELS) and data["base"] == "llama-7b"
    lines = {line["task"]: line for line in data["lines"]}
    assert [lines["toxigen"]["lower"], lines["gsm_cot"]["lower"]] == [True, False]
    for i, model in enumerate(data["models"]):
        for task in SHARES:
            run = json.loads((suites / model / task / "run.json").read_text())
            cell = lines[task]["cells"][i]
            assert (cell["value"], cell["n"]) == (100 * run["value"], 60)
            assert cell["shown"] == f"{100 * run['value']:.1f}"
    assert lines["gsm_cot"]["cells"][3] == {
        "value": 27.0, "shown": "27.0", "stderr": None, "n": 200, "tied": False,
        "difference": None}  # fmt: skip
    assert lines["gsm_cot"]["cells"][2]["difference"]["found"]


def test_groups_are_means_of_their_instances(data):
    for group, found in enumerate(data["groups"]["gsm_cot"]):
        for cell, more in zip(found["cells"], (MODELS[m] for m in data["models"]), strict=True):
            mine = values("gsm_cot", more)[group::3]
            assert cell["n"] == 20 and cell["value"] == pytest.approx(5 * sum(mine))


def test_every_instance_can_be_rebuilt(data):
    assert data["totals"] == dict.fromkeys(SHARES, 60)
    assert len(data["instances"]) == 60 * len(SHARES)
    known = {(task, model): {r["id"]: r for r in rows(task, MODELS[model])}
             for task in SHARES for model in MODELS}  # fmt: skip
    for instance in data["instances"]:
        for answer, model in zip(instance["answers"], data["models"], strict=True):
            wanted = known[instance["task"], model][instance["id"]]
            same = answer["prompt"]
            shared, own = same if isinstance(same, list) else instance["answers"][same]["prompt"]
            assert data["texts"][shared] + own == wanted["prompt"]
            assert (answer["output"], answer["value"]) == (wanted["output"], wanted["correct"])
            assert (answer["gold"], answer["samples"]) == ("1", 1)


def test_shared_beginnings_are_told_once(hostile):
    data = payload(hostile)
    assert sorted(data["texts"]) == ["", FEW]
    bulk = [one for one in data["instances"] if one["id"].startswith("bulk")]
    assert {data["texts"][one["answers"][0]["prompt"][0]] for one in bulk} == {FEW}
    assert {one["answers"][1]["prompt"] for one in bulk} == {0}
    assert hostile.read_text("utf-8").count("1 + 1 = 2") == 2


def test_hostile_text_stays_data(hostile):
    text = hostile.read_text("utf-8")
    assert "<img" not in text and text.count("<script") == 2 and "\u2028" not in text
    data = payload(hostile)
    found = {one["id"]: one["answers"][0] for one in data["instances"]}
    assert found["markup" + MARKUP]["output"] == MARKUP
    assert found["half" + HALF]["gold"] == HALF
    assert found["failed"] == found["failed"] | {"output": None, "value": None,
                                                 "error": f"timed out {MARKUP}"}  # fmt: skip
    assert found["long"]["output"].startswith("A" * 2000 + "\n… 26,008 characters left out …\nA")
    assert found["long"]["output"].endswith("the end")
    assert len(LONG) - 26_008 == LONGEST_OUTPUT


@pytest.mark.parametrize("largest", [300_000, 150_000])
def test_a_page_is_no_larger_than_it_may_be(suites, tmp_path, largest):
    wide = "Wide ü. " * 900
    for i in range(3):
        written = [row(f"q{n}", int((n * i) % 5 == 0), prompt=f"{n}{wide}", output=wide)
                   for n in range(200)]  # fmt: skip
        write_result(tmp_path / f"m{i}" / "gsm_cot", written, model=f"m{i}")
        write_result(tmp_path / f"m{i}" / "bbh_cot", written, model=f"m{i}", task="bbh_cot")
    path = write_html(tmp_path / "report.html", read_board([tmp_path]), largest=largest)
    assert path.stat().st_size <= largest
    data = payload(path)
    tasks = [one["task"] for one in data["instances"]]
    assert 2 <= len(tasks) < 400 and abs(tasks.count("gsm_cot") - tasks.count("bbh_cot")) <= 1
    assert data["totals"] == {"gsm_cot": 200, "bbh_cot": 200}
    assert path.stat().st_size > 0.6 * largest


def test_what_there_is_much_of_is_cut(tmp_path):
    written = [row(f"q{n}", 1, group=f"g{n}", prompt_tokens=float("nan")) for n in range(300)]
    write_result(tmp_path, written, warnings=[f"{n}: {'x' * 9000}" for n in range(300)])
    data = payload(write_html(tmp_path / "r.html", read_board([tmp_path])))
    assert len(data["groups"]["gsm_cot"]) == 200
    assert len(data["warnings"]) == 201 and data["warnings"][-1] == "and 100 more"
    assert max(map(len, data["warnings"])) == 601
    assert data["instances"][0]["answers"][0]["tokens"] == [None, 5]


def test_half_of_a_sample_are_those_that_differ(tmp_path):
    for name, wrong in (("a", 0), ("b", 30)):
        written = [row(f"q{n}", int(n >= wrong)) for n in range(3000)]
        write_result(tmp_path / name / "gsm_cot", written, model=name)
    data = payload(write_html(tmp_path / "r.html", read_board([tmp_path])))
    first = data["instances"][:40]
    flipped = [one for one in first if len({a["value"] for a in one["answers"]}) == 2]
    assert len(data["instances"]) == 600 and 20 <= len(flipped) <= 25
    again = payload(write_html(tmp_path / "s.html", read_board([tmp_path])))
    assert again == data


def test_samples_of_a_problem_are_one_instance(tmp_path):
    written = [row(f"HumanEval/{i}#{s}", int(s < i)) for i in range(3) for s in range(4)]
    write_result(tmp_path / "codex_eval_temp_0.8", written, task="codex_eval_temp_0.8",
                 metric="pass@2")  # fmt: skip
    data = payload(write_html(tmp_path / "r.html", read_board([tmp_path])))
    found = {one["id"]: one["answers"][0] for one in data["instances"]}
    assert found["HumanEval/1"]["samples"] == 4 and found["HumanEval/1"]["value"] == 0.5


def test_a_place_that_cannot_be_written(suites, tmp_path):
    with pytest.raises(DataError, match=r"cannot write the report - got .* - move away"):
        write_html(tmp_path, read_board([suites]))
