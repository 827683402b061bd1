"""Results as logs of Inspect, read back by Inspect itself."""

import importlib.util
import json

import pytest

from eval.harness.inspect_log import check_installed
from tests.eval.asking import result, write_jsonl
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError

needs_inspect = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None,
    reason="inspect-ai is not installed: pip install 'tulu-jax[inspect]', in its own environment",
)


@pytest.fixture
def gsm(tmp_path):
    """Runs gsm_chat on four questions with answers to three; the result folder."""
    (tmp_path / "gsm").mkdir()
    rows = [{"question": f"Number {n}?", "answer": f"So. #### {n}"} for n in range(4)]
    write_jsonl(tmp_path / "gsm" / "test.jsonl", rows)
    outputs = ["It is 0.", "It is 7 \ud800.", "2"]
    lines = [{"prompt": f"Number {n}?", "output": text} for n, text in enumerate(outputs)]
    answers = write_jsonl(tmp_path / "answers.jsonl", lines)

    def run(*flags):
        where = ["--data_dir", tmp_path, "--save_dir", tmp_path / "out", "--replay", answers]
        words = ["eval", "gsm_chat", "--no_chat_format", *where, *flags]
        return main([str(word) for word in words]), tmp_path / "out" / "gsm_chat"

    return run


@needs_inspect
def test_inspect_reads_what_was_written(gsm):
    from inspect_ai.log import read_eval_log

    status, folder = gsm("--log_format", "inspect")
    assert status == 1  # one has no answer
    log = read_eval_log(str(folder / "inspect.eval"))
    metrics, run, rows = result(folder)
    assert (log.status, log.eval.task, log.eval.model) == ("success", "gsm_chat", "answers")
    assert log.eval.task_id and log.eval.run_id
    (score,) = log.results.scores
    assert score.name == "exact_match" and score.metrics["mean"].value == metrics["exact_match"]
    assert score.metrics["stderr"].value == pytest.approx(run["stderr"])
    assert (log.results.total_samples, log.results.completed_samples) == (4, 3)
    samples = log.samples
    assert [sample.id for sample in samples] == [row["id"] for row in rows]
    assert samples[0].input == rows[0]["prompt"] and samples[0].target == "0"
    assert samples[1].output.completion == "It is 7 \\ud800."
    values = [sample.scores["exact_match"].value for sample in samples[:3]]
    assert values == [1.0, 0.0, 1.0] and samples[1].scores["exact_match"].answer == "7"
    assert samples[3].scores == {} and "no such prompt" in samples[3].metadata["error"]
    assert samples[0].metadata["question"] == "Number 0?"
    assert log.eval.metadata["quirks"] == run["quirks"]


@needs_inspect
def test_it_is_written_again_when_results_are_graded_again(gsm):
    from inspect_ai.log import read_eval_log

    _, folder = gsm("--log_format", "inspect")
    rows = result(folder)[2]
    rows[1]["output"] = "It is 1."
    write_jsonl(folder / "predictions.jsonl", rows)
    assert main(["eval", "score", str(folder)]) == 1
    log = read_eval_log(str(folder / "inspect.eval"))
    assert log.results.scores[0].metrics["mean"].value == 1.0


@needs_inspect
def test_it_is_listed_where_inspect_looks(gsm):
    from inspect_ai.log import list_eval_logs

    _, folder = gsm("--log_format", "inspect")
    assert [info.name for info in list_eval_logs(str(folder.parent))]


def test_without_the_flag_there_is_none(gsm):
    _, folder = gsm()
    assert not list(folder.glob("inspect*")) and json.loads((folder / "run.json").read_text())


def test_without_inspect_it_is_refused_at_once(gsm, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logs of Inspect need .* pip install 'tulu-jax\[insp"):
        check_installed()
    status, folder = gsm("--log_format", "inspect")
    assert (
        status == 2 and not folder.exists() and "at --log_format inspect" in capsys.readouterr().err
    )
