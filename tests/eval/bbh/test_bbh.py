"""BIG-Bench Hard: prompts, the answer in an output, and when it is right."""

import doctest
import json

import pytest

from eval.bbh import run_eval
from eval.bbh.run_eval import Bbh, Options, extract
from tests.eval.asking import context, read_jsonl, replay, result, tulu_format
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.errors import DataError

PROMPT = """canary
-----
Close the brackets.

Q: One?
A: Let's think step by step.
First (1). So the answer is maybe not. So the answer is (A).

Q: Two?
A: Let's think step by step.
So the answer is (B).
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "bbh"
    for name in ("dyck_languages", "snarks"):
        write(path, name, [{"input": f"{name} {i}?", "target": "(A)"} for i in range(5)])
    return path


def write(folder, name, examples, prompt=PROMPT):
    for part in ("bbh", "cot-prompts"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "bbh" / f"{name}.json").write_text(json.dumps({"examples": examples}))
    (folder / "cot-prompts" / f"{name}.txt").write_text(prompt)


def load(folder, options=None, **fields):
    return Bbh().load(context(Bbh(), folder, options, **fields))


def test_the_file_without_its_canary_stands_before_the_question(folder):
    (one, *_) = load(folder)
    shown = PROMPT.removeprefix("canary\n-----\n").strip()
    assert one.ask.prompt.text == f"{shown}\n\nQ: dyck_languages 0?\nA:"
    assert one.id == "dyck_languages/0" and one.group == "dyck_languages"
    assert (one.ask.stops, one.ask.max_new_tokens) == (("\n\n",), 512)
    (one, *_) = load(folder, formatter=tulu_format)
    assert one.ask.prompt.text.endswith("dyck_languages 0?\n<|assistant|>\nA:")


@pytest.mark.parametrize("no_cot", [False, True])
def test_a_copy_of_the_prompts_without_canary_or_with_other_line_ends(folder, no_cot):
    """The first lost the task's description, the other showed the reasoning in spite of no_cot."""
    options = Options(no_cot=no_cot)
    wanted = [one.ask.prompt.text for one in load(folder, options)]
    for change in (
        lambda text: text.removeprefix("canary\n-----\n"), lambda text: text.replace("\n", "\r\n")
    ):  # fmt: skip
        for name in ("dyck_languages", "snarks"):
            (folder / "cot-prompts" / f"{name}.txt").write_bytes(change(PROMPT).encode())
        assert [one.ask.prompt.text for one in load(folder, options)] == wanted


def test_another_number_of_examples_is_told(folder):
    """A file that was cut between two examples can be read."""
    rows = [{**one.data, "group": one.group} for one in load(folder)]
    assert Bbh().remarks(rows, {}, context(Bbh(), folder)) == [
        "2 tasks are shown with another number of examples than 3: dyck_languages 2, snarks 2"
    ]
    prompt = PROMPT + "\nQ: Three?\nA: Let's think step by step.\nSo the answer is (C).\n"
    write(folder, "snarks", [{"input": "x", "target": "(A)"}], prompt)
    rows = [{**one.data, "group": one.group} for one in load(folder) if one.group == "snarks"]
    assert Bbh().remarks(rows, {}, context(Bbh(), folder)) == []


def test_without_reasoning_the_last_answer_of_each_example_stays(folder):
    (one, *_) = load(folder, Options(no_cot=True))
    assert one.ask.prompt.text == (
        "Close the brackets.\n\nQ: One?\nA: (A).\n\nQ: Two?\nA: (B).\n\nQ: dyck_languages 0?\nA:"
    )


def test_the_reference_never_stops(folder):
    (one, *_) = load(folder, compat="paper")
    assert (one.ask.stops, one.ask.stop_tokens) == ((), ())
    (one, *_) = load(folder, endpoint=True)
    assert one.ask.stops == ()


def test_a_draw_does_not_depend_on_other_tasks(folder):
    drawn = [one.id for one in load(folder, Options(max_num_examples_per_task=2))]
    assert len(drawn) == 4
    (folder / "bbh/dyck_languages.json").unlink()
    (folder / "cot-prompts/dyck_languages.txt").unlink()
    assert [one.id for one in load(folder, Options(max_num_examples_per_task=2))] == drawn[2:]


def test_all_of_it(shared):
    folder = shared / "eval_data" / "bbh"
    assert len(load(folder)) == 6511
    direct = load(folder, Options(no_cot=True, max_num_examples_per_task=40))
    assert len(direct) == 27 * 40
    for one in direct:
        shown = one.ask.prompt.text.rsplit("\n\nQ: ", 1)[0]
        assert shown.count("\nA: ") == 3 and "step by step" not in shown


OUTPUTS = [
    # output, the paper's answer, ours
    ("So the answer is (A).", "(A)", "(A)"),
    ("the answer is (A).", "the answer is (A).", "(A)"),
    (" False.\n\nQ: x\nA: So the answer is True.", "True", "False."),
    ("So the answer is 3.5. Yes", "3", "3.5"),
    ("So the answer is 3.5", "3", "3.5"),
    ("So the answer is (A)", "So the answer is (A)", "(A)"),
    ("So the answer is: (A).", "So the answer is: (A).", "(A)"),
    ("So the answer is\n(A)\nQ: x", "So the answer is\n(A)\nQ: x", "(A)"),
    ("The answer is", "The answer is", "The answer is"),
    ("So the answer is no. So the answer is yes.", "no", "no"),
    ("\n\n(B)\n\nQ: more", "(B)", "(B)"),
    ("", "", ""),
]


@pytest.mark.parametrize(("output", "paper", "fixed"), OUTPUTS)
def test_the_answer_in_an_output(output, paper, fixed):
    assert extract(output, paper=True)[0] == paper
    assert extract(output, paper=False)[0] == fixed


GRADES = [
    # task, output, gold, right in the paper, right
    ("snarks", " (a).", "(A)", True, True),
    ("snarks", "(B)", "(A)", False, False),
    ("dyck_languages", "] ] )", "> ) }", True, False),
    ("dyck_languages", ">  ) }", "> ) }", False, True),
    ("dyck_languages", "", "]", True, False),
    ("multistep_arithmetic_two", "12", "-12", True, False),
    ("multistep_arithmetic_two", "-12", "-12", True, True),
    ("multistep_arithmetic_two", "-12.0", "-12", False, True),
    ("multistep_arithmetic_two", "\u221212", "-12", False, True),
]


@pytest.mark.parametrize(("task", "output", "gold", "paper", "fixed"), GRADES)
def test_when_an_answer_is_right(task, output, gold, paper, fixed):
    for compat, right in (("paper", paper), ("fixed", fixed)):
        row = {"output": output, "gold": gold, "group": task}
        graded = Bbh().grade(row, context(Bbh(), ".", compat=compat))
        assert graded["correct"] is right
        if task != "snarks":  # both are told, whichever counts
            assert (graded["correct_paper"], graded["correct_fixed"]) == (paper, fixed)


def test_a_target_that_is_no_number_is_refused_where_one_must_be(folder):
    write(folder, "multistep_arithmetic_two", [{"input": "1+1", "target": "two"}])
    with pytest.raises(DataError, match=r"target is no number - got 'two' at .* example 0"):
        load(folder)


def test_metrics_are_the_mean_of_tasks(folder, tmp_path):
    write(folder, "snarks", [{"input": "snarks 0?", "target": "(A)"}])
    file = replay(
        tmp_path / "a.jsonl", Bbh(), context(Bbh(), folder),
        lambda one: "So the answer is (A)." if one.id in ("snarks/0", "dyck_languages/1") else "no",
    )  # fmt: skip
    arguments = ["--data_dir", str(folder), "--save_dir", str(tmp_path / "out")]
    assert run_benchmark("bbh", [*arguments, "--replay", str(file)]) == 0
    metrics, run, _ = result(tmp_path / "out")
    assert metrics["snarks"] == 1.0 and metrics["dyck_languages"] == pytest.approx(0.2)
    assert metrics["average_exact_match"] == run["value"] == pytest.approx(0.6)
    lines = read_jsonl(tmp_path / "out/predictions/dyck_languages.jsonl")
    assert list(lines[1]) == ["input", "target", "raw_output", "prediction"]
    assert (lines[1]["prediction"], lines[0]["raw_output"]) == ("(A)", "no")


def test_damaged_folders_are_told(folder):
    (folder / "cot-prompts/snarks.txt").unlink()
    with pytest.raises(DataError, match="tasks and their prompts do not match - got snarks"):
        load(folder)
    with pytest.raises(DataError, match=r"no task of BIG-Bench Hard .* tulu data download"):
        load(folder / "bbh")
    write(folder, "snarks", [{"input": "?"}])
    with pytest.raises(DataError, match=r"object lacks a field .*snarks.json example 0"):
        load(folder)
    write(folder, "snarks", [], prompt="a\nb\nTask.\n\nQ: x\nA: none")
    with pytest.raises(DataError, match=r"example has no answer .*snarks.txt"):
        load(folder, Options(no_cot=True))


def test_examples_in_docstrings():
    assert doctest.testmod(run_eval).failed == 0
