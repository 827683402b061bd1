"""GSM8K: prompts, the number in an output, and when it is right."""

import doctest
import json

import pytest

from eval.gsm import run_eval
from eval.gsm.run_eval import Gsm, Options, equal, last_number
from tests.eval.asking import context, read_jsonl, replay, result, tulu_format, write_jsonl
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.errors import ConfigError, DataError

ROWS = [
    {"question": "2+2?", "answer": "It is 4. #### 4"},
    {"question": " How many? ", "answer": "So #### 1,234,567"},
    {"question": "Less?", "answer": "#### -10"},
]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "gsm"
    path.mkdir()
    write_jsonl(path / "test.jsonl", ROWS)
    return path


def load(folder, options=None, **fields):
    return Gsm().load(context(Gsm(), folder, options, **fields))


def test_eight_examples_with_their_reasoning_stand_before_the_question(folder):
    instances = load(folder)
    text = instances[1].ask.prompt.text
    assert text.startswith("Answer the following questions.\n\nQuestion: There are 15 trees")
    assert text.count("Question: ") == 9 and text.count("So the answer is") == 8
    assert text.endswith("\n\nQuestion: How many?\nAnswer:")
    assert [one.gold for one in instances] == ["4", "1234567", "-10"]
    assert (instances[0].ask.max_new_tokens, instances[0].ask.stops) == (512, ("\n",))


def test_all_examples_stand_in_one_user_turn(folder):
    text = load(folder, formatter=tulu_format)[0].ask.prompt.text
    assert text.startswith("<|user|>\nAnswer the following")
    assert text.endswith("Question: 2+2?\n<|assistant|>\nAnswer:")
    assert load(folder, formatter=tulu_format)[0].ask.stops == ()


def test_without_reasoning_the_word_question_is_misspelled_in_the_paper(folder):
    options = Options(no_cot=True, n_shot=2)
    assert load(folder, options)[0].ask.prompt.text.count("Quesion: ") == 0
    paper = load(folder, options, compat="paper")[0].ask.prompt.text
    assert paper.count("Quesion: ") == 2 and paper.count("Question: ") == 1


def test_without_examples(folder):
    (one, *_) = load(folder, Options(n_shot=0))
    assert one.ask.prompt.text == "Answer the following question.\n\nQuestion: 2+2?\nAnswer:"
    (one, *_) = load(folder, Options(n_shot=0, zero_shot_chat=True), formatter=tulu_format)
    assert one.ask.prompt.text == "<|user|>\n2+2?\n<|assistant|>\n" and one.ask.stops == ()


def test_the_papers_two_hundred(shared):
    folder = shared / "eval_data" / "gsm"
    chosen = json.loads((shared / "eval_data/fixtures/gsm_paper_subset_200.json").read_text())
    instances = load(folder, Options(max_num_examples=200))
    assert [int(one.id) for one in instances] == chosen["indices"]
    assert len(load(folder)) == 1319


NUMBERS = [
    # output, the paper's number, ours
    (" It is 18.", "18", "18"),
    ("$1,234,567 in all", "1234567", "1234567"),
    ("-10", "10", "-10"),
    ("-1.5 or +2.25", "+2.25", "+2.25"),
    ("It costs $18.00", "18.00", "18.00"),
    ("a .125 share", ".125", ".125"),
    ("\u221210", "10", "-10"),
    ("3 - 10", "10", "10"),
    ("3-10", "10", "10"),
    ("1. 2. 3.", "3", "3"),
    ("no number", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("output", "paper", "fixed"), NUMBERS)
def test_the_last_number_of_an_output(output, paper, fixed):
    assert last_number(output, paper=True) == paper
    assert last_number(output, paper=False) == fixed


GRADES = [
    # output, gold, right in the paper, right
    (" 18.", "18", True, True),
    ("18.00", "18", False, True),
    ("-10", "-10", True, True),
    ("10", "-10", True, False),
    ("-10", "10", True, False),
    ("1,234", "1234", True, True),
    ("0.5", "5", False, False),
    ("0.50", ".5", False, True),
    ("ten", "10", False, False),
]


@pytest.mark.parametrize(("output", "gold", "paper", "fixed"), GRADES)
def test_when_a_number_is_right(output, gold, paper, fixed):
    for compat, right in (("paper", paper), ("fixed", fixed)):
        row = {"output": output, "gold": gold}
        assert Gsm().grade(row, context(Gsm(), ".", compat=compat))["correct"] is right


def test_words_are_no_number_and_infinity_neither():
    assert not equal("Infinity", "Infinity") and not equal("NaN", "NaN")


@pytest.mark.parametrize("answer", ["It is 4.", "#### four", ""])
def test_a_question_without_a_number_is_refused(folder, answer):
    write_jsonl(folder / "test.jsonl", [*ROWS, {"question": "?", "answer": answer}])
    with pytest.raises(DataError, match=r"answer ends in no number .* line 4"):
        load(folder)


def test_more_examples_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="n_shot is out of range - got 9"):
        Options(n_shot=9)


def test_from_data_to_results_with_the_references_flags(folder, tmp_path):
    options = Options(n_shot=1)
    outputs = {"0": " 4", "1": " 1,234,567 of them", "2": " 10"}
    file = replay(
        tmp_path / "answers.jsonl", Gsm(), context(Gsm(), folder, options), lambda i: outputs[i.id]
    )
    arguments = ["--data_dir", str(folder), "--save_dir", str(tmp_path / "out"), "--n_shot", "1"]
    assert run_benchmark("gsm", [*arguments, "--replay", str(file)]) == 0
    metrics, run, rows = result(tmp_path / "out")
    assert metrics["exact_match"] == pytest.approx(2 / 3) and metrics["n"] == 3
    assert run["value"] == metrics["exact_match"] and run["metric"] == "exact_match"
    assert [row["correct"] for row in rows] == [True, True, False]
    reference = {"question", "answer", "model_output", "prediction"}
    assert all(reference <= set(row) for row in read_jsonl(tmp_path / "out/predictions.jsonl"))
    assert (rows[1]["model_output"], rows[1]["prediction"]) == (" 1,234,567 of them", "1234567")


def test_examples_in_docstrings():
    assert doctest.testmod(run_eval).failed == 0
