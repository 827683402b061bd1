"""A study's report: its numbers are those of the results, and its findings follow from them."""

import csv
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from eval.report.paper import paper_rows
from eval.study.cells import results
from eval.study.page import render
from eval.study.report import as_csv, latex, markdown, sections, terminal
from eval.study.results import loss_difference, loss_interval, read_losses, read_study
from eval.study.state import states_of
from eval.study.study import NONE, Grid
from eval.study.tables import within
from eval.study.workflow import write_workflow
from tests.eval.results import row, write_result
from tests.eval.study.finished_studies import finish, small_table, write_task
from tests.eval.study.small_studies import DOLLY, base, evaluation
from tulu_jax.errors import DataError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return finish(small_table(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def found(table):
    return read_study(table)


@pytest.fixture(scope="module")
def made(found):
    return sections(found, within)


def section(made, name):
    (one,) = (one for one in made if one.name == name)
    return one


def rows(grid):
    return {name: [cell.text for cell in cells] for name, cells in grid.rows}


def test_every_number_is_that_of_metrics_json(table, found):
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    scores = [line for line in lines if line["metric"] != "heldout_loss"]
    assert len(scores) == 6 * 4 and len(lines) == len(scores) + 6 * 3
    for line in scores:
        place = table.root / line["from"]
        metrics = json.loads((place.parent / "metrics.json").read_text())
        assert float(line["value"]) == 100 * metrics[line["metric"]]
        assert int(line["n"]) == metrics["n"]
    for line in lines:
        if line["metric"] == "heldout_loss":
            said = json.loads((table.root / line["from"]).read_text())
            assert float(line["value"]) == said["tasks"][line["task"]]["loss"]


def test_tables_show_those_numbers(found, made):
    (grid,) = section(made, "benchmarks").tables
    for one in found.outcomes:
        cells = rows(grid)[one.name]
        for task, cell in zip(found.board.tasks, cells, strict=False):
            assert cell.startswith(f"{one.model.numbers[task].value:.1f}")
    assert {"small", "small+dolly", "small+mix", "large+mix"} < set(rows(grid))


def test_every_number_leads_to_its_predictions(table, found, made):
    for name in ("datasets", "benchmarks"):
        (grid,) = section(made, name).tables
        ours = [cells for row, cells in grid.rows if not row.startswith("paper: ")]
        links = [cell.link for cells in ours for cell in cells[: len(found.board.tasks)]]
        assert sum(link is None for link in links) == (len(ours) if name == "datasets" else 0)
        assert all((table.root / link).is_file() for link in links if link)


def test_the_papers_numbers_stand_beside(made):
    (grid,) = section(made, "datasets").tables
    names = [name for name, _ in grid.rows]
    dolly = names.index("Dolly")
    assert names[dolly + 1] == "paper: LLaMa 13B, Dolly"
    (row,) = (r for r in paper_rows() if r.data == "Dolly" and r.size == "13B" and "v2" in r.title)
    shown = [cell.text for cell in grid.rows[dolly + 1][1]]
    assert shown[0] == f"{row.numbers['mmlu_0shot'].value:.1f}"
    assert names[:2] == ["none (as it is)", "paper: LLaMa 13B, none"]


def test_cells_say_what_they_were_made_of(table, made):
    (grid,) = section(made, "cells").tables
    for name, cells in grid.rows:
        state, digest, run, *_ = cells
        assert state.text == "done"
        assert re.fullmatch(r"[0-9a-f]{12}|–", digest.text)
        assert (digest.text == "–") == (run.link is None) == (name == "small")


def test_findings_follow_from_the_numbers(made):
    text = " ".join(section(made, "skills-small").text)
    assert re.search(r"reasoning: Alpaca, \+[45]\d\.\d \[.*beyond chance\)", text)
    assert re.search(r"knowledge: Dolly, \+[45]\d\.\d", text)
    assert "safety" in text and "not beyond chance" in text
    best = section(made, "best-small")
    assert best.text[0] == "No dataset is best, or tied with the best, in all 4 tasks."
    assert best.text[1] == "Alone highest in most tasks: Alpaca, in 1 of 4."
    assert rows(best.tables[0])["GSM CoT"][0] == "Alpaca"
    mixing = section(made, "mixing-small").text
    assert len(mixing) == 1 and re.search(r"mix: .* in [34] of 4 tasks", mixing[0])
    (bases,) = section(made, "bases").text
    assert "large is highest of 2 base models" in bases
    (size,) = section(made, "sizes").text
    assert size.startswith("toy, mix: 7B is +")


def test_losses_show_which_dataset_each_model_knows(found, made):
    small, large = section(made, "losses").tables
    assert small.columns == ["Alpaca", "Dolly", "Code-Alpaca"]
    assert rows(small)["Dolly"] == ["2.150", "1.650", "2.150"]
    assert rows(small)["none (as it is)"] == ["2.150"] * 3
    assert [cell.tied for cell in dict(small.rows)["Dolly"]] == [False, True, False]
    assert list(rows(large)) == ["mix"] and small.counts == [4, 4, 4]
    assert not any(cell.tied for cell in dict(large.rows)["mix"])  # it has nobody beside it
    assert next(iter(rows(small))) == "none (as it is)"
    (text,) = section(made, "own-losses").text
    assert "on 3 of 3 datasets the model trained on that dataset has the lowest" in text
    assert text.endswith("on 3 of them beyond chance.")


def test_the_judge_is_drawn_against_unique_tokens(made):
    one = section(made, "judge-alpaca_eval_unique_tokens")
    assert re.search(r"Over 6 models win rates follow .* r = 1.00 \[1.00, 1.00\]", one.text[0])
    assert "r from 0.50 to 0.50 (6 models)" in one.text[1]
    assert one.figure.count("<circle") == 6 and "<title>small+dolly: " in one.figure


def test_human_evaluation_is_counted(tmp_path):
    sheet = tmp_path / "sheet.jsonl"
    said = {"instance_id": "1", "instance_index": 0, "evaluator": "ada", "model_a": "x",
            "model_b": "y", "completion_a_is_acceptable": "yes", "completion_b_is_acceptable": "no",
            "preference": "a-is-better", "timestamp": 1700000000}  # fmt: skip
    sheet.write_text(json.dumps(said) + "\n")
    table = finish(small_table(tmp_path, human_sheets=(str(sheet),)), only=["small"])
    one = section(sections(read_study(table), within), "human")
    (grid,) = one.tables
    assert rows(grid)["x against y"][1].startswith("100.0")
    assert rows(grid)["paper: Tulu 7B"][1] == "68.7"
    assert one.text == ("1 annotations of 1 people.",) and "svg" in one.figure


def test_formats_show_all_of_it(found, made):
    text = markdown(found, made)
    assert text.startswith("# Study toy\n\n6 cells (5 trained), 6 done; 4 tasks.\n")
    for one in made:
        assert f"## {one.title}".split(" (")[0] in text.replace("\\", "")
    assert "](evaluate/" in text
    assert latex(made).count("\\begin{tabular}") == sum(len(one.tables) for one in made)
    from rich.console import Console

    console = Console(width=200, file=io.StringIO())
    for part in terminal(made, 200):
        console.print(part)
    assert "Which dataset helps which skill most" in console.file.getvalue()


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.ids, self.tags = [], set(), []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.links += [found["href"]] if tag == "a" else []
        self.ids |= {found.get("id")}


def test_every_link_of_the_page_resolves(table, found, made):
    page = Links()
    text = render(found, made)
    page.feed(text)
    assert len(page.links) > 60 and "script" not in page.tags
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert (table.root / link).exists() or link.endswith("/run") or "export/" in link, link
    assert len(text) < 2_000_000


def test_names_are_text_on_the_page(tmp_path):
    table = finish(small_table(tmp_path, name="a [b] _c_"))
    found = read_study(table)
    text = render(found, sections(found, lambda path: None))
    assert '<h1 dir="auto">Study a [b] _c_</h1>' in text and '<a href="#cells"' in text
    assert markdown(found, []).startswith("# Study a \\[b\\] \\_c\\_\n")


def test_a_part_of_a_study_is_reported_and_said(tmp_path):
    table = finish(small_table(tmp_path), only=["small", "small+dolly"])
    found = read_study(table)
    made = sections(found, within)
    names = [one.name for one in made]
    assert "skills-small" not in names and "benchmarks" in names
    assert "4 of 6 cells are not done: small+stanford_alpaca" in section(made, "remarks").text[0]
    with pytest.raises(
        DataError, match=r"nothing of the study is done that could be reported - at"
    ):
        read_study(small_table(tmp_path / "other"))


def test_the_same_study_makes_the_same_report(table, made):
    found = read_study(table)
    again = sections(found, within)
    assert render(found, again) == render(found, made)
    assert str(table.root) not in render(found, again) + markdown(found, again) + latex(again)


@pytest.mark.parametrize("text", ['{"tasks": {"a": {}}}', '{"tasks": 3}', "[1]", "{}",
                                  '{"tasks": {"a": {"loss": 1, "examples": []}}}'])  # fmt: skip
def test_losses_that_are_none_are_named(tmp_path, text):
    (tmp_path / "losses.json").write_text(text)
    with pytest.raises(DataError, match=r"losses cannot be read|no JSON object|losses.json"):
        read_losses(tmp_path / "losses.json")


def test_a_loss_has_its_interval(found):
    one = next(o for o in found.outcomes if o.name == "small+dolly")
    value, low, high = loss_interval(one.losses[DOLLY])
    assert value == pytest.approx(one.losses[DOLLY].loss)
    assert high - value == pytest.approx(value - low) == pytest.approx(1.96 * 0.12909944 / 2)
    other = next(o for o in found.outcomes if o.name == "small")
    assert loss_difference(one.losses[DOLLY], other.losses[DOLLY])[0] == pytest.approx(0.5)


def test_one_model_without_mixtures_or_judges(tmp_path):
    one = evaluation("all", tasks=("mmlu_0shot", "gsm_cot"))
    grid = Grid(models=(base("small"),), datasets=(NONE, DOLLY), evaluations=(one,))
    table = finish(small_table(tmp_path, grids=(grid,), names={}))
    found = read_study(table)
    made = sections(found, within)
    assert [one.name for one in made] == ["losses", "benchmarks", "cells"]
    assert "Dolly" in render(found, made) and "tabular" in latex(made)
    alone = dataclasses.replace(grid, datasets=(NONE,))
    table = finish(small_table(tmp_path / "alone", grids=(alone,), names={}))
    found = read_study(table)
    assert "1 cells (0 trained), 1 done; 2 tasks" in markdown(found, sections(found, within))


def test_two_studies_of_one_folder_share_what_they_have_in_common(tmp_path):
    first = finish(small_table(tmp_path), only=["small", "small+dolly"])
    grids = (dataclasses.replace(first.study.grids[0], datasets=(DOLLY,)),)
    second = small_table(tmp_path, grids=grids, names={}, name="second")
    made = {one.name: one.state for one in read_study(second).outcomes}
    assert made == {"small+dolly": "stopped"}  # its losses are of fewer datasets
    assert states_of(second)[second.cells[0].of("train")[0].key] == "done"
    write_workflow(second)
    assert set(states_of(first).values()) == {"done", "waiting"}


def test_a_number_of_fewer_questions_says_so_and_a_lost_result_too(tmp_path):
    """Both were shown like any other, or not at all."""
    table = finish(small_table(tmp_path))
    cell = table.cells[1]
    (step,) = cell.of("evaluate")
    folder = table.root / results(step)
    write_task(folder / "gsm_cot", cell, "gsm_cot", count=20)
    shutil.rmtree(folder / "toxigen")
    found = read_study(table)
    grid = section(sections(found, within), "benchmarks").tables[0]
    at = grid.columns.index("GSM CoT")
    texts = {name: cells[at] for name, cells in rows(grid).items() if "paper" not in name}
    assert texts[cell.name].endswith("(n 20)") and grid.counts[at] == 60
    assert [name for name, text in texts.items() if "(n" in text] == [cell.name]
    (line,) = [line for line in found.board.warnings if "no result" in line]
    assert line.startswith(f"toxigen: {cell.name}: no result, though its step is done, so it is in")


def test_what_all_instances_say_alike_is_not_beyond_chance(tmp_path):
    """Two questions that one model has right and the other wrong had an interval of no width."""
    table = finish(small_table(tmp_path))
    for cell in table.cells:
        (step,) = cell.of("evaluate")
        right = [int(cell.dataset == DOLLY)] * 2
        write_result(
            table.root / results(step) / "gsm_cot", [row(str(i), r) for i, r in enumerate(right)],
            task="gsm_cot", model=cell.name, benchmark="gsm",
        )  # fmt: skip
    made = sections(read_study(table), within)
    (line,) = [line for line in section(made, "skills-small").text if line.startswith("reasoning")]
    assert (
        line.startswith("reasoning: Dolly, +100.0 points over ") and line.count("(not beyond") == 2
    )
