"""MMLU: prompts, shots that fit, answer letters, metrics."""

import csv
import doctest
import io

import numpy as np
import pytest

from eval.harness.asks import Choose
from eval.mmlu import run_eval
from eval.mmlu.run_eval import Mmlu, Options, as_pandas, header
from tasks.demo import TOKENIZER_DIR
from tests.eval.asking import context, result, tulu_format, write_jsonl
from tulu_jax.chat import load_tokenizer
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.errors import ConfigError, DataError

SUBJECTS = ("anatomy", "astronomy", "formal_logic")


def write(folder, subject, part, rows):
    (folder / part).mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    (folder / part / f"{subject}_{part}.csv").write_text(text.getvalue())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mmlu"
    for subject in SUBJECTS:
        write(path, subject, "dev", [[f"shot {i}", "1", "2", "None", "x", "A"] for i in range(5)])
        rows = [[f"{subject} {i}?", "1", "2", "None", "x, y", "ABCD"[i % 4]] for i in range(6)]
        write(path, subject, "test", rows)
    return path


def load(folder, options=None, **fields):
    return Mmlu().load(context(Mmlu(), folder, options, **fields))


def test_header_shots_and_question(folder):
    instances = load(folder, Options(ntrain=1))
    assert instances[1].ask.prompt.text == (
        "The following are multiple choice questions (with answers) about  anatomy.\n\n"
        "shot 0\nA. 1\nB. 2\nC. None\nD. x\nAnswer: A\n\n"
        "anatomy 1?\nA. 1\nB. 2\nC. None\nD. x, y\nAnswer:"
    )
    assert len(instances) == 18 and instances[1].id == "anatomy/1" and instances[1].gold == "B"
    assert isinstance(instances[0].ask, Choose) and instances[0].ask.choices == ()
    assert header("formal_logic").endswith("about  formal logic.\n\n")


def test_in_chat_format_the_answer_is_begun(folder):
    text = load(folder, Options(ntrain=0), formatter=tulu_format)[0].ask.prompt.text
    assert text.endswith("D. x, y\nAnswer:\n<|assistant|>\nThe answer is:")


def test_the_paper_reads_none_as_nan(folder):
    text = load(folder, Options(ntrain=0), compat="paper")[0].ask.prompt.text
    assert "C. nan\n" in text and "A. 1\n" in text


PANDAS = [
    (["1", "2"], ["1", "2"]),
    (["1", "None"], ["1.0", "nan"]),
    (["1", "2.50"], ["1.0", "2.5"]),
    (["x", "N/A", "7.0"], ["x", "nan", "7.0"]),
    (["None", ""], ["nan", "nan"]),
    (["1_0", "2"], ["1_0", "2"]),
]


@pytest.mark.parametrize(("column", "written"), PANDAS)
def test_columns_as_pandas_writes_them(column, written):
    assert as_pandas(column) == written


def test_no_column_of_the_data_changes_but_for_missing_values(shared):
    """pandas gives the same text of every other cell: the quirk is of ten cells."""
    folder = shared / "eval_data" / "mmlu"
    fixed, paper = (load(folder, Options(ntrain=0), compat=c) for c in ("fixed", "paper"))
    assert len(fixed) == 14_042
    changed = [
        (one.data["options"], other.data["options"])
        for one, other in zip(fixed, paper, strict=True)
        if one.ask.prompt.text != other.ask.prompt.text
    ]
    cells = [(a, b) for old, new in changed for a, b in zip(old, new, strict=True) if a != b]
    assert len(cells) == 10 and {b for _, b in cells} == {"nan"}


def test_subjects_and_instances_are_chosen(folder):
    options = Options(ntrain=0, subjects=("astronomy", "anatomy"), n_instances=4)
    ids = [one.id for one in load(folder, options)]
    rows = np.random.RandomState(42).permutation(6)[:4]
    assert ids == [f"{s}/{row}" for s in ("astronomy", "anatomy") for row in rows]
    with pytest.raises(ConfigError, match=r"unknown subject - got alchemy at --subjects"):
        load(folder, Options(subjects=("alchemy",)))


def test_shots_are_left_out_until_a_prompt_fits(folder):
    tokenizer = load_tokenizer(TOKENIZER_DIR)
    long = " ".join(["word"] * 900)
    rows = [[f"{long} {i}", "1", "2", "3", "4", "A"] for i in range(5)]
    write(folder, "anatomy", "dev", rows)
    options = Options(subjects=("anatomy",))
    size = len(tokenizer.encode_text(long))
    for fields, most in (
        ({}, 2049), ({"max_length": 1500}, 1499), ({"max_length": 1500, "compat": "paper"}, 2049)
    ):  # fmt: skip
        found = load(folder, options, tokenizer=tokenizer, **fields)
        for one in found:
            assert len(one.ask.prompt.ids) <= most < len(one.ask.prompt.ids) + size
            assert one.data["shots"] == one.ask.prompt.text.count(long)
    rows = [{"shots": 1}, {}, {"shots": 2}]
    assert Mmlu().remarks(rows, {}, context(Mmlu(), ".", options)) == [
        "2 of 3 questions are shown with fewer than 5 examples, 1.5 in the mean, for want of room "
        "(--max_length)"
    ]
    assert Mmlu().remarks([{}], {}, context(Mmlu(), ".", options)) == []


@pytest.mark.parametrize("tokens", ["llama", "pythia", "opt"])
def test_letters_are_the_tokens_that_follow(shared, folder, tokens):
    """The paper's rule takes another token where a tokenizer writes the space with the letter."""
    tokenizer = load_tokenizer(shared / "tokenizers" / tokens)
    pieces = {}
    for compat in ("paper", "fixed"):
        one = load(folder, Options(ntrain=0), compat=compat, tokenizer=tokenizer)[0]
        pieces[compat] = [tokenizer.piece(token) for token in one.ask.choices]
    space = "▁" if tokens == "llama" else "Ġ"
    assert pieces["fixed"] == [space + letter for letter in "ABCD"]
    assert pieces["paper"] == [("▁" if tokens == "llama" else "") + letter for letter in "ABCD"]


def test_probabilities_are_what_the_reference_saves_in_each_mode():
    row = {"choice_logprobs": np.log([0.2, 0.1, 0.05, 0.05]).tolist(), "gold": "A"}
    fixed = Mmlu().grade(row, context(Mmlu(), "."))
    paper = Mmlu().grade(row, context(Mmlu(), ".", compat="paper"))
    assert fixed["prediction"] == paper["prediction"] == "A" and fixed["correct"]
    assert fixed["choiceA_prob"] == pytest.approx(0.2)
    assert paper["choiceA_prob"] == fixed["choiceA_prob_renorm"] == pytest.approx(0.5)


def test_of_equal_letters_the_first_is_taken():
    row = {"choice_logprobs": [-2.0, -1.0, -1.0, -3.0], "gold": "C"}
    assert Mmlu().grade(row, context(Mmlu(), "."))["prediction"] == "B"


@pytest.mark.parametrize("count", [3, 5])
def test_another_number_of_log_probabilities_is_a_failure(count):
    graded = Mmlu().grade({"choice_logprobs": [-1.0] * count, "gold": "A"}, context(Mmlu(), "."))
    assert graded == {"error": f"{count} log-probabilities of 4 choices"}


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        (" B", "B"), ("B.", "B"), ("(B)", "B"), ("**B**", "B"), ("B. A cell", "B"), ("C", "C"),
        ("B\n\nIt is", "B"), ("The correct answer is: (B) a", "B"), ("", None), ("E", None),
        ("A cell, for", None), ("D'Artagnan", None), ("Because", None), ("Either A or B", None),
    ],
)  # fmt: skip
def test_an_answer_in_words_counts_by_its_letter(output, letter):
    """Chat models write `B.` or `(B)`: all of MMLU was wrong then."""
    graded = Mmlu().grade({"output": output, "gold": "B"}, context(Mmlu(), "."))
    assert graded["correct"] is (letter == "B") and graded["extracted"] is (letter is not None)
    assert graded["prediction"] == (output.strip() if letter is None else letter)


def test_from_data_to_results(folder, tmp_path):
    options = Options(ntrain=0)
    lines = [
        {"prompt": one.ask.prompt.text, "choice_logprobs": [-1.0, -2.0, -3.0, -4.0]}
        for one in load(folder, options)
    ]
    file = write_jsonl(tmp_path / "a.jsonl", lines)
    arguments = ["--data_dir", str(folder), "--save_dir", str(tmp_path / "out"), "--ntrain", "0"]
    assert run_benchmark("mmlu", [*arguments, "--replay", str(file)]) == 0
    metrics, run, rows = result(tmp_path / "out")
    # Of six questions of each subject two have the answer A.
    assert metrics["average_acc"] == metrics["macro_acc"] == pytest.approx(1 / 3)
    assert set(metrics["subcat_acc"]) == {"health", "physics", "philosophy"}
    assert set(metrics["cat_acc"]) == {"STEM", "humanities", "other (business, health, misc.)"}
    assert run["task"] == "mmlu_0shot" and run["n"] == 18 and rows[0]["cluster"] == "anatomy"
    table = list(csv.reader(io.StringIO((tmp_path / "out/anatomy.csv").read_text())))
    assert table[0] == [*"012345", "correct", *(f"choice{x}_probs" for x in "ABCD")]
    assert table[1][:7] == ["anatomy 0?", "1", "2", "None", "x, y", "A", "True"]
    assert float(table[1][7]) == pytest.approx(np.exp(-1.0))


def test_tables_of_an_earlier_result_go(folder, tmp_path):
    """Subjects that were asked another model lay among those of this one."""
    lines = [
        {"prompt": one.ask.prompt.text, "choice_logprobs": [-1.0, -2.0, -3.0, -4.0]}
        for one in load(folder, Options(ntrain=0))
    ]
    out, file = tmp_path / "out", write_jsonl(tmp_path / "a.jsonl", lines)
    arguments = ["--data_dir", str(folder), "--save_dir", str(out), "--ntrain", "0"]
    assert run_benchmark("mmlu", [*arguments, "--replay", str(file)]) == 0
    for name in ("inspect.eval", "notes.csv"):
        (out / name).write_text("old")
    assert (out / "astronomy.csv").exists() and "astronomy.csv" in result(out)[1]["files"]
    assert run_benchmark("mmlu", [*arguments, "--replay", str(file), "--subjects", "anatomy"]) == 0
    found = {path.name for path in out.iterdir()}
    assert found == {"anatomy.csv", "notes.csv", "answers.jsonl", "predictions.jsonl",
                     "metrics.json", "run.json"}  # fmt: skip
    assert result(out)[1]["files"] == ["anatomy.csv"]


def test_damaged_folders_are_told(folder):
    with pytest.raises(DataError, match=r"no subject of MMLU .* tulu data download"):
        load(folder / "dev")
    with pytest.raises(DataError, match=r"too few examples to show - got 5 .* --ntrain 6"):
        load(folder, Options(ntrain=6))
    write(folder, "anatomy", "test", [["q", "1", "2", "3", "4", "0"]])
    with pytest.raises(DataError, match=r"answer is no letter - got '0' .* row 1"):
        load(folder)
    (folder / "dev/anatomy_dev.csv").unlink()
    with pytest.raises(DataError, match=r"benchmark file is missing .*anatomy_dev.csv"):
        load(folder)


def test_examples_in_docstrings():
    assert doctest.testmod(run_eval).failed == 0
