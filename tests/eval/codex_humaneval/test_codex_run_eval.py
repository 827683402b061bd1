"""Codex-Eval as a task: prompts, samples, pass@k, and the reference's files."""

import json
import math
import shutil

import pytest

from eval.codex_humaneval.run_eval import STOPS, CodexEval, Options
from eval.harness.runner import limited
from eval.humaneval_plus.run_eval import HumanEvalPlus
from tests.eval.asking import context, read_jsonl, result, tulu_format, write_jsonl
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError, DataError

PROBLEMS = [
    {
        "task_id": f"HumanEval/{i}",
        "prompt": f"def add{i}(a, b):\n",
        "canonical_solution": "    return a + b\n",
        "test": f"def check(f):\n    assert f(1, {i}) == 1 + {i}\n",
        "entry_point": f"add{i}",
    }
    for i in range(3)
]
RIGHT, WRONG = "    return a + b", "    return 0"
needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap")


@pytest.fixture
def file(tmp_path):
    return write_jsonl(tmp_path / "HumanEval.jsonl", PROBLEMS)


def load(file, options=None, **fields):
    return CodexEval().load(context(CodexEval(), file, options, **fields))


def test_the_bare_header_is_asked_of_every_model(file):
    instances = load(file, Options(unbiased_sampling_size_n=2))
    assert [one.id for one in instances][:3] == ["HumanEval/0#0", "HumanEval/0#1", "HumanEval/1#0"]
    ask = instances[1].ask
    assert ask.prompt.text == PROBLEMS[0]["prompt"] and ask.sample == 1
    assert (ask.stops, ask.temperature, ask.top_p) == (STOPS, 0.1, 0.95)
    assert not CodexEval.chats and not HumanEvalPlus.chats


def test_in_chat_format_the_header_is_the_beginning_of_the_answer(file, tmp_path):
    text = load(file, formatter=tulu_format)[0].ask.prompt.text
    header = PROBLEMS[0]["prompt"]
    assert text == (
        f"<|user|>\nComplete the following python function.\n\n\n{header}\n<|assistant|>\n"
        f"Here is the completed function:\n\n\n{header}"
    )
    pack = write_jsonl(
        tmp_path / "pack.jsonl",
        [{"task_id": f"Python/{i}", "instruction": f"Add {i}!"} for i in (0, 1)],
    )
    options = Options(data_file_hep=str(pack), max_num_examples=None)
    with pytest.raises(DataError, match="no instruction for a problem - got HumanEval/2"):
        load(file, options, formatter=tulu_format)
    write_jsonl(file, PROBLEMS[:2])
    ask = load(file, options, formatter=tulu_format)[0].ask
    assert ask.prompt.text.startswith(
        "<|user|>\nAdd 0!\n<|assistant|>\nHere is the function:\n\n```python\n"
    )
    assert ask.stops == (*STOPS, "\n```")


def test_an_endpoint_is_asked_for_code_alone(file):
    ask = load(file, endpoint=True)[0].ask
    assert "Please only output the code" in ask.prompt.text and ask.stops == ()


def test_a_limit_takes_one_sample_of_many_problems(file):
    few = limited(load(file), 2)
    assert [one.ask.sample for one in few] == [0, 0] and len({one.cluster for one in few}) == 2


def test_programs_are_run_only_where_that_is_allowed(file):
    with pytest.raises(ConfigError, match=r"would be run .* --allow_code_execution"):
        CodexEval().check(context(CodexEval(), file))
    CodexEval().check(context(CodexEval(), file, allow_code=True))


def test_more_k_than_samples_is_refused():
    with pytest.raises(ConfigError, match="fewer samples than k - got 4"):
        Options(eval_pass_at_ks=(1, 5), unbiased_sampling_size_n=4)


@needs_bwrap
def test_from_data_to_results(file, tmp_path):
    lines = [
        {"prompt": p["prompt"], "output": RIGHT if good else WRONG}
        for p, passes in zip(PROBLEMS, ((1, 1), (1, 0), (0, 0)), strict=True)
        for good in passes
    ]
    replayed = write_jsonl(tmp_path / "a.jsonl", lines)
    arguments = ["--data_file", str(file), "--save_dir", str(tmp_path / "out"), "--replay",
                 str(replayed), "--unbiased_sampling_size_n", "2", "--eval_pass_at_ks", "1", "2",
                 "--temperature", "0.8"]  # fmt: skip
    assert run_benchmark("codex_humaneval", arguments) == 2  # not allowed
    assert run_benchmark("codex_humaneval", [*arguments, "--allow_code_execution"]) == 0
    metrics, run, rows = result(tmp_path / "out")
    assert metrics["pass@1"] == run["value"] == pytest.approx(0.5)
    assert metrics["pass@2"] == pytest.approx(2 / 3) and run["n"] == 3
    assert "bubblewrap" in rows[0]["isolation"] and rows[0]["result"] == "passed"
    samples = read_jsonl(tmp_path / "out/codex_eval_predictions.jsonl")
    assert list(samples[0]) == ["task_id", "prompt", "completion"] and len(samples) == 6
    results = read_jsonl(tmp_path / "out/codex_eval_predictions.jsonl_results.jsonl")
    assert [row["passed"] for row in results] == [True, True, True, False, False, False]
    # Graded again: nothing is run without leave.
    assert main(["eval", "score", str(tmp_path / "out")]) == 2
    assert main(["eval", "score", str(tmp_path / "out"), "--allow_code_execution"]) == 0
    assert json.loads((tmp_path / "out/metrics.json").read_text())["pass@1"] == metrics["pass@1"]


def test_pass_at_10_is_not_told_of_fewer_samples(file):
    row = {"task_id": "HumanEval/0", "correct": True, "result": "passed"}
    options = Options(eval_pass_at_ks=(1, 10), temperature=0.8)
    few = CodexEval().headline([row] * 9, context(CodexEval(), file, options))
    assert few.metric == "pass@10" and math.isnan(few.value)
    enough = CodexEval().headline([row] * 10, context(CodexEval(), file, options))
    assert (enough.metric, enough.value, enough.n) == ("pass@10", 1.0, 1)


@needs_bwrap
def test_what_equals_everything_passes_in_the_paper_alone(file):
    cheat = "    class T(int):\n        def __eq__(self, other): return True\n    return T(7)"
    rows = [{"id": "HumanEval/1#0", "task_id": "HumanEval/1", "output": cheat}]
    for compat, passes in (("paper", True), ("fixed", False)):
        graded = CodexEval().grade_all(rows, context(CodexEval(), file, compat=compat))
        assert graded[0]["correct"] is passes
