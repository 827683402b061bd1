"""Evaluation sets are read in their formats, by the readers of `tulu eval`."""

import json
import shutil

import pytest

from eval.harness.registry import benchmarks
from tests.inspect import eval_sets
from tulu_jax.cli.data.benchmarks import UNSCORED, read_eval_data, sources
from tulu_jax.errors import DataError
from tulu_jax.inspect.check.benchmarks import BenchmarkItem


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return eval_sets.write_eval_data(tmp_path_factory.mktemp("eval"))


@pytest.fixture(scope="module")
def items(folder):
    return read_eval_data(folder)


def test_every_benchmark_is_read(items):
    by_name = {item.benchmark: item for item in items}
    assert set(by_name) == set(sources()) and set(UNSCORED) <= set(by_name)
    assert set(benchmarks()) - set(by_name) == {"tulu_demo"}, "a benchmark has no items"
    assert by_name["mmlu"].answer == "the troposphere" and "None" in by_name["mmlu"].prompt
    assert by_name["mmlu"].id == "weather_test:0"
    assert by_name["gsm"] == BenchmarkItem("gsm", "line 1", eval_sets.GSM, "47")
    assert by_name["bbh"].id == "navigate:0" and by_name["codex_humaneval"].id == "Test/0"
    assert by_name["humaneval_plus"].answer == eval_sets.SOLUTION
    assert by_name["tydiqa"].prompt == f"{eval_sets.CONTEXT}\n{eval_sets.FINNISH}"
    assert by_name["truthfulqa"][1:] == ("0", eval_sets.TRUTH, "Silver")
    assert by_name["xstest"][1:] == ("1", eval_sets.UNSAFE, "")
    assert by_name["ifeval"][1:] == ("7", eval_sets.FOLLOW, "")
    toxigen = [item for item in items if item.benchmark == "toxigen"]
    assert [item.prompt for item in toxigen] == [eval_sets.STATEMENT, "cows"]
    assert toxigen[0].id == "hate_asian:0"
    assert by_name["alpaca_farm"][1:] == ("0", eval_sets.INSTRUCTION, "Because it is far away.")
    assert len([item for item in items if item.benchmark == "human_eval"]) == 1
    creative = [item for item in items if item.benchmark == "creative_tasks"]
    assert [item.id for item in creative] == ["u0", "vicuna_test:1"]
    assert creative[0].prompt == "Rewrite this in other words.\n\nSome text."


def test_an_unpacked_file_and_a_folder_that_is_not_there(folder, tmp_path):
    (tmp_path / "codex_humaneval").mkdir()
    row = {"task_id": "T/0", "prompt": "def f():", "canonical_solution": " pass", "test": ""}
    text = json.dumps(row | {"entry_point": "f"})
    (tmp_path / "codex_humaneval" / "HumanEval.jsonl").write_text(text)
    assert read_eval_data(tmp_path) == [
        BenchmarkItem("codex_humaneval", "T/0", "def f():", " pass")
    ]
    shutil.copytree(folder / "bbh", tmp_path / "bbh")
    assert [item.benchmark for item in read_eval_data(tmp_path)] == ["bbh", "codex_humaneval"]


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"no evaluation data - at .* folders such as mmlu"):
        read_eval_data(tmp_path)
    with pytest.raises(DataError, match=r"no evaluation data - got no such folder at .*none"):
        read_eval_data(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"no evaluation data - got a file at .*file"):
        read_eval_data(tmp_path / "file")


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "gsm").mkdir()
    row = '{"question": "How many?", "answer": "#### 4"}'
    (tmp_path / "gsm" / "test.jsonl").write_text(row, encoding="utf-8-sig")
    assert read_eval_data(tmp_path)[0].answer == "4"


TYDIQA = "tydiqa/tydiqa-goldp-v1.1-dev.json"
PASSAGE = '{"data": [{"paragraphs": [{"context": "c", "qas": [%s]}]}]}'


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("gsm/test.jsonl", '{"question": "q"\n', r"line is no JSON .* at .*test.jsonl line 1"),
        ("gsm/test.jsonl", '{"question": "q"}\n', r"lacks a field .* expected question, answer"),
        ("gsm/train.jsonl", "{}\n", r"benchmark file is missing - at .*test.jsonl"),
        ("mmlu/test/x_test.csv", "question,1,2,3,4,E\n", r"answer is no letter - got 'E'"),
        ("mmlu/test/x_test.csv", "question,1,2,E\n", r"another number of columns - got 4"),
        ("mmlu/dev/x_dev.csv", "question,1,2,3,4,A\n", r"no subject of MMLU"),
        ("bbh/bbh/a.json", "[1]", r"no JSON object - got \[1\] at .*a.json"),
        ("bbh/bbh/a.json", "", r"benchmark file is empty - at .*a.json"),
        ("bbh/bbh/a.json", '{"examples": []}', r"benchmark without an item - at .*bbh"),
        ("bbh/bbh/a.json", '{"examples": 3}', r"field is no list - got examples: 3 at .*a.json"),
        (
            "bbh/bbh/a.json",
            '{"examples": [{"input": "q", "target": 1}]}',
            r"field is no text - got target: 1 at .*a.json example 0",
        ),
        ("bbh/cot-prompts/a.txt", "x", r"no task of BIG-Bench Hard - at .*bbh"),
        (TYDIQA, '{"data": 3}', r"field is no list - got data: 3 at .*dev.json"),
        (TYDIQA, PASSAGE % "7", r"no JSON object - got 7 at .* article 0"),
        (
            TYDIQA,
            PASSAGE % '{"id": "a-1", "question": "q", "answers": [{"text": 1}]}',
            r"field is no text - got text: 1 at .* article 0, question a-1",
        ),
        (TYDIQA, '{"data": []}', r"benchmark file has no question"),
        ("codex_humaneval/HumanEval.jsonl.gz", "no gzip", r"a problem is not JSON"),
        ("codex_humaneval/README", "", r"problems cannot be read - got No such file"),
        ("truthfulqa/TruthfulQA.csv", "a,b,c,d,e,f,g\n", r"columns are not TruthfulQA's"),
        ("toxigen/hate_asian.txt", "- x\n", r"groups have no file - got black, chinese"),
        ("xstest/xstest_prompts.csv", "a,b,c,d,e,f\n", r"file has other columns"),
        ("ifeval/input_data.jsonl", "{}", r"object lacks a field"),
        (
            "gsm/test.jsonl",
            "version https://git-lfs.github.com/spec/v1\n",
            r"is a Git LFS pointer, not the file - at .*test.jsonl",
        ),
        ("mmlu/test/x_test.csv", "<!doctype html>", r"is a web page .*x_test.csv"),
        ("gsm/test.jsonl", '{"question": 3, "answer": "4"}\n', r"no text - got question: 3 at"),
        ("gsm/test.jsonl", '{"question": "q", "answer": "four"}\n', r"answer ends in no number"),
        ("gsm/test.jsonl", "[" * 100_000, r"line is no JSON - got nested too deeply"),
        ("human_eval/instances.jsonl", '{"prompt": "x"}', r"lacks a field .* expected id, prompt"),
        ("human_eval/instances.jsonl", '{"prompt": "x', r"line is no JSON .* line 1"),
        (
            "human_eval/instances.jsonl",
            '{"id": 3, "prompt": "x"}',
            r"no text - got id: 3 at .* row 1",
        ),
        ("human_eval/other", "", r"evaluation file is missing - got no \*instances\*.jsonl"),
        ("creative_tasks/a_test.jsonl", "<!doctype html>", r"is a web page .*a_test.jsonl"),
        ("creative_tasks/a_test.jsonl", '{"text": 3}', r"no text - got text: 3 at .*a_test.jsonl"),
        (
            "creative_tasks/a_test.jsonl",
            '{"id": "u", "instruction": "i", "instances": [{"input": "x"}]}',
            r"lacks a field .* at .* row 1, first instance - expected input, output",
        ),
        ("alpaca_farm/davinci_003_outputs.json", "[", r"file is no JSON"),
        ("alpaca_farm/davinci_003_outputs.json", "[1]", r"entry is no object - got 1 at .*entry 1"),
        ("alpaca_farm/other.json", "[1]", r"benchmark file is missing - at .*text_davinci_003"),
    ],
)
def test_broken_files_are_named(tmp_path, path, content, message):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(content)
    with pytest.raises(DataError, match=message):
        read_eval_data(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path):
    """A folder stands where the file is wanted, which says so to root too."""
    (tmp_path / "human_eval" / "instances.jsonl").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot be read - got Is a directory at .*instances"):
        read_eval_data(tmp_path)
