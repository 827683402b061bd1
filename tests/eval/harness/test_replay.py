"""Answers from a file."""

import hashlib
import json

import pytest

from eval.harness.asks import Answer, Choose, Generate, Prompt, Weigh
from eval.harness.replay import ReplayBackend
from tests.eval.asking import write_jsonl
from tulu_jax.errors import DataError


def answers(path, *asks):
    found = {}
    ReplayBackend(path).answer(asks, lambda index, answer: found.setdefault(index, answer))
    return [found[index] for index in range(len(asks))]


def generate(text, sample=0):
    return Generate(Prompt(text), 5, temperature=0.8, sample=sample)


def test_lines_are_found_by_prompt_and_by_its_sha256(tmp_path):
    digest = hashlib.sha256("deux ♥\n".encode()).hexdigest()
    lines = [
        {"prompt": "one", "output": "1", "stop_reason": "length", "other": 3},
        {"prompt_sha256": digest.upper(), "output": ""},
        {"prompt": "lone \ud800", "output": "3"},
    ]
    path = write_jsonl(tmp_path / "a", lines)
    asks = [generate("lone \ud800"), generate("deux ♥\n"), generate("one")]
    assert answers(path, *asks) == [Answer("3"), Answer(""), Answer("1", "length")]


def test_lines_of_one_prompt_are_its_samples_in_order(tmp_path):
    lines = [{"prompt": p, "output": f"{p}{n}"} for n in range(2) for p in "ab"]
    path = write_jsonl(tmp_path / "a", lines)
    found = answers(path, generate("a", 1), generate("b"), generate("a"), generate("a", 2))
    assert [one.output for one in found] == ["a1", "b0", "a0", None]
    assert found[3].error == "not in a: 2 outputs of this prompt, sample 2 is asked for"


def test_a_prompt_that_is_not_there_fails_alone(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "one", "output": "1"}])
    lost, found = answers(path, generate("One"), generate("one"))
    assert lost.error == "not in a.jsonl: no such prompt, sample 0 is asked for"
    assert found.output == "1"


def test_choices_are_replayed_too(tmp_path):
    line = {"prompt": "one", "choice_logprobs": [-0.5, -2]}
    path = write_jsonl(tmp_path / "a", [line])
    asks = (Choose(Prompt("one"), (3, 4)), Weigh(Prompt("one"), ()))
    assert answers(path, *asks) == [Answer(logprobs=(-0.5, -2))] * 2


def test_files_of_the_alpaca_eval_package_are_answers(tmp_path):
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Say.", "output_1": "r", "output_2": "lone \ud800"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    found = answers(tmp_path / "a.json", generate("Add.\n\n1 2"), generate("Say."))
    assert found == [Answer("3"), Answer("lone \ud800")]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert answers(tmp_path / "a.jsonl", generate("Say.")) == [Answer("lone \ud800")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[{"instruction": "a", "output": "b"}',
            "^file is no JSON .* take it anew from where it came",
        ),
        ('[{"instruction": "a", "output": "b"}, 3]', "replayed entry is no object - got 3 at .* 2"),
        ('[{"instruction": "a"}]', "replayed line has no output .* row 1"),
        ('[{"instruction": 3, "output": "b"}]', "replayed line has no prompt"),
    ],
)
def test_a_damaged_list_is_told(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        ReplayBackend(tmp_path / "a.json")


def test_another_file_has_another_fingerprint(tmp_path):
    paths = [
        write_jsonl(tmp_path / name, [{"prompt": "one", "output": text}])
        for name, text in (("a", "1"), ("b", "1"), ("c", "2"))
    ]
    first, same, other = (ReplayBackend(path).fingerprint for path in paths)
    assert first == same != other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}', r"replayed line has no output - got \['prompt'\] at .* row 2"),
        ('{"prompt": "a", "output": null}', "replayed line has no output"),
        ('{"output": "a"}', r"replayed line has no prompt .* expected prompt \(text\), or"),
        ('{"prompt": ["a"], "output": "a"}', "replayed line has no prompt"),
        ('{"prompt": "a", "output"', "line is no JSON .* line 2 - take it anew from where it came"),
        ('["a"]', "line is no JSON object .* line 2"),
    ],
)
def test_a_damaged_line_is_told(tmp_path, text, message):
    path = tmp_path / "a"
    path.write_text('{"prompt": "one", "output": "1"}\n' + text + "\n")
    with pytest.raises(DataError, match=message):
        ReplayBackend(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"^file is missing - at .*none - take it anew from where"):
        ReplayBackend(tmp_path / "none")


def test_an_output_that_goes_on_past_a_stop_is_cut_there(tmp_path):
    """Else the last number of GSM8K was that of a question which the model made up itself."""
    line = {"prompt": "1+1=", "output": " 2.\n\nQuestion: 2+2?\nAnswer: 4", "stop_reason": "length"}
    path = write_jsonl(tmp_path / "a", [line])
    stopped, whole = answers(
        path, Generate(Prompt("1+1="), 9, ("Q", "\n")), Generate(Prompt("1+1="), 9)
    )
    assert stopped == Answer(" 2.", "stop:\n") and whole == Answer(line["output"], "length")


@pytest.mark.parametrize("logprobs", [["a"], [None, -1.0], [True, False]])
def test_log_probabilities_that_are_no_numbers_are_told(tmp_path, logprobs):
    path = write_jsonl(tmp_path / "a", [{"prompt": "one", "choice_logprobs": logprobs}])
    with pytest.raises(DataError, match=r"log-probabilities are no numbers - got .* row 1 - expec"):
        ReplayBackend(path)
