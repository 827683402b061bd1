"""The paper's numbers and its two averages, which must come out as printed."""

import math
import re

import pytest

from eval.harness.registry import suites
from eval.report.paper import DATA, chosen_rows, paper_data, paper_rows, read_records
from eval.report.tasks import AVERAGES, TASKS, Number, in_order, task_of
from tulu_jax.errors import ConfigError

V1, V2 = AVERAGES


def numbers(record):
    return {
        task.name: Number(float(record[task.column]), math.nan, 1)
        for task in TASKS.values()
        if task.column and record[task.column]
    }


def printed(version, table):
    """(label, average as printed, average of its cells) of every line that has all cells."""
    average = {"v1": V1, "v2": V2}[version]
    found = []
    for record in read_records():
        if record["paper_version"].startswith(version) and record["table"] == table:
            number = average.of(numbers(record))
            if number is not None and record["average"]:
                found.append((record, float(record["average"]), number.value))
    return found


def test_averages_of_the_first_version_come_out_as_printed():
    rows = printed("v1", "HF model card")
    seen = [row for row in rows if "re-computed" not in row[0]["confidence"]]
    assert len(seen) == 6 and len(rows) == 8
    for record, theirs, ours in rows:
        assert abs(theirs - ours) <= 0.05 + 1e-9, record["label"]


def test_averages_of_the_second_version_come_out_as_printed():
    rows = printed("v2", "Table 3")
    assert len(rows) == 14
    for record, theirs, ours in rows:
        assert abs(theirs - ours) <= 0.05 + 1e-9, record["label"]


def test_each_line_of_the_paper_says_where_it_was_seen():
    records = read_records()
    assert len(records) == 53
    assert all(record["source"] and record["confidence"] for record in records)


def test_lines_of_one_model_say_the_same():
    for row in paper_rows():
        lines = [
            record
            for record in read_records()
            if (record["paper_version"], record["label"]) in {(row.version, n) for n in row.labels}
        ]
        for record in lines:
            for task, number in numbers(record).items():
                assert row.numbers[task].value == number.value, (row.title, task)


def test_a_model_of_several_tables_is_one_row():
    (row,) = [r for r in paper_rows() if r.title == "Tulu 7B (v2)"]
    assert {task: n.value for task, n in row.numbers.items()} == {
        "average_v2": 38.3, "mmlu_0shot": 44.8, "alpaca_eval": 48.6}  # fmt: skip
    assert len(row.sources) == 3 and row.sources[0].startswith("Table 4, secondary note")


def test_average_by_hand():
    shares = {task: Number(10.0 * i, 1.0, 100) for i, task in enumerate(
        task for tasks in V1.benchmarks for task in tasks)}  # fmt: skip
    found = V1.of(shares)
    # 5, 25, 45, 65, 85 and 100 alone; errors: five pairs weigh 1/12 twice, the last 1/6.
    assert found is not None and found.n == 1100
    assert found.value == pytest.approx((5 + 25 + 45 + 65 + 85 + 100) / 6)
    assert found.stderr == pytest.approx(math.sqrt(10 / 144 + 1 / 36))
    del shares["gsm_cot"]
    assert V1.of(shares) is None and V1.lacking(shares) == ["gsm_cot"]
    assert V2.lacking(shares) == ["gsm_cot"]


def test_tasks_are_in_the_order_of_the_tables():
    assert in_order(["mine", "gsm_cot", "mmlu_0shot", "mine"]) == ["mmlu_0shot", "gsm_cot", "mine"]
    assert task_of("mine").title == "mine" and task_of("gsm_cot").title == "GSM CoT"


def test_every_task_of_the_papers_suites_is_a_column_of_its_tables():
    suite = {*suites()["tulu1"], *suites()["tulu1_v2"]}
    assert len(suite) > 7
    assert [name for name in suite if task_of(name).column is None] == []


def labels(*arguments):
    return [row.title for row in chosen_rows(*arguments)]


def test_rows_of_the_paper_are_chosen():
    assert labels(["auto"], ["something"], [None]) == ["tulu-7b (v1)"]
    assert labels(["auto"], ["TULU 13b", "x"], [None]) == [
        "tulu-13b (v1)", "LLaMa 13B + Human+GPT mix (v2)"]  # fmt: skip
    assert labels(["auto"], ["x"], ["tulu_dolly"]) == ["LLaMa 13B + Dolly (v2)"]
    assert labels(["none"], ["tulu-7b"], [None]) == []
    assert len(labels(["all"], [], [])) == len(paper_rows()) > 30
    assert labels(["tulu-65b"], [], []) == ["Tulu 65B (v2)"]


def test_a_row_that_is_not_there():
    message = re.escape("the paper has no row of this name - got 'tulu 8b' - expected auto, all, "
                        "none, or a row's name - the nearest are Tulu 7B")  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        chosen_rows(["tulu 8b"], [], [])


def test_every_dataset_of_ours_is_one_of_the_papers():
    data = {record["data"] for record in read_records()}
    assert set(DATA.values()) <= data
    assert paper_data("tulu_v1_human_gpt") == "Human+GPT mix" and paper_data("my own") == "my own"
