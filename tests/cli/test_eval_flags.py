"""No flag of an evaluation is passed over: it is followed, refused, or said to do nothing."""

import json

import pytest

from eval.harness.registry import find_benchmark
from tests.cli.small_model import write_model
from tests.eval.asking import context, result, write_jsonl
from tulu_jax.cli import eval_models
from tulu_jax.cli.eval_flags import add_run_flags, notes_on_flags
from tulu_jax.cli.evaluate import evaluate_parser, run_benchmark, run_predict
from tulu_jax.cli.main import main

QUESTION = "How many?"
FUNCTION = "eval.templates.create_prompt_with_llama2_chat_format"
REPLAY = ("--replay", "answers.jsonl")
CHAT = ("--engine", "m", "--base_url", "http://localhost:9")
EXACT = (*CHAT, "--api", "completions")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The working folder, with GSM8K of one question and answers to it in each format."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "gsm").mkdir(parents=True)
    write_jsonl(
        tmp_path / "data" / "gsm" / "test.jsonl", [{"question": QUESTION, "answer": "#### 4"}]
    )
    asked = (QUESTION, f"<|user|>\n{QUESTION}\n<|assistant|>\n", f"[INST] {QUESTION} [/INST]")
    write_jsonl(tmp_path / "answers.jsonl", [{"prompt": text, "output": "4"} for text in asked])
    return tmp_path


@pytest.fixture
def tulu(work, capsys, one_parser):
    """Runs gsm_chat; its exit status and what it said."""

    def run(*words):
        status = main(["eval", "gsm_chat", "--data_dir", "data", *map(str, words)])
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("who", "flags", "message"),
    [
        (REPLAY, ("--step", "3"), "--step goes with --model - got 3 - leave it out"),
        (CHAT, ("--base", "dir"), "--base goes with --model - got "),
        (
            REPLAY,
            ("--add_bos", "true"),
            "--add_bos goes with --model, or with --replay and --token",
        ),
        (REPLAY, ("--use_slow_tokenizer",), "--use_slow_tokenizer goes with --model, or with"),
        (CHAT, ("--tokenizer", "dir"), "--tokenizer goes with --model, or with --replay"),
        (EXACT, ("--add_bos", "false"), "--add_bos goes with --model"),
        (EXACT, ("--use_slow_tokenizer",), "--use_slow_tokenizer goes with --model"),
        (CHAT, ("--no_chat_format",), "--no_chat_format cannot be followed: the endpoint writes"),
        (
            CHAT,
            ("--use_chat_format", "--chat_formatting_function", FUNCTION),
            f"--chat_formatting_function cannot be followed: the endpoint writes messages as text "
            f"itself - got {FUNCTION} - leave it out, or ask with exact prompts: --api completions",
        ),
        (CHAT, ("--chat_formatting_function", FUNCTION), "--chat_formatting_function cannot be"),
        (
            EXACT,
            ("--chat_formatting_function", FUNCTION),
            f"--chat_formatting_function without chat format changes nothing - got {FUNCTION} - "
            "add --use_chat_format, or leave it out",
        ),
        (REPLAY, ("--chat_formatting_function", FUNCTION), "without chat format changes nothing"),
        (
            (*REPLAY, "--tokenizer", "dir"),
            ("--use_slow_tokenizer", "--quirk", "slow_tokenizer=fixed"),
            "flags contradict each other - got --use_slow_tokenizer and --quirk slow_tokenizer",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(tulu, work, who, flags, message):
    status, err = tulu(*who, *flags)
    assert status == 2 and message in err, err
    assert not list(work.glob("results/*/run.json"))


@pytest.mark.parametrize("flags", [("--no_chat_format",), ()])
def test_a_format_without_chat_is_refused_by_models_too(tulu, tmp_path, flags):
    model = write_model(tmp_path / "model")
    if not flags:  # a base model
        for name in ("chat_template.jinja", "checksums.json"):
            (model / name).unlink(missing_ok=True)
        fields = json.loads((model / "tokenizer_config.json").read_text())
        fields.pop("chat_template", None)
        (model / "tokenizer_config.json").write_text(json.dumps(fields))
    status, err = tulu("--model", model, "--chat_formatting_function", FUNCTION, *flags)
    assert status == 2 and "without chat format changes nothing" in err


def test_formats_that_are_asked_for_are_followed(tulu, work):
    where = work / "results" / "gsm_chat"
    for flags, begins in (
        ((), QUESTION),
        (("--use_chat_format",), "<|user|>"),
        (("--use_chat_format", "--chat_formatting_function", FUNCTION), "[INST]"),
    ):
        status, err = tulu(*REPLAY, *flags)
        assert status == 0, err
        assert result(where)[2][0]["prompt"].startswith(begins)


def test_what_does_nothing_is_said(tulu):
    flags = ("--concurrency", 3, "--requests_per_minute", 9, "--dtype", "bfloat16")
    _, err = tulu(*REPLAY, *flags, "--max_length", 64)
    assert "note --concurrency, --requests_per_minute: nothing is asked of an endpoint" in err
    assert "note --max_length, --dtype: nothing is asked of a model of ours (--model)" in err
    _, err = tulu(*REPLAY)
    assert "nothing is asked" not in err


def test_a_judge_may_need_what_the_model_does_not():
    words = ["--replay", "x", "--base_url", "http://localhost:9", "--dtype", "bfloat16"]
    args = evaluate_parser().parse_args(words)
    assert len(notes_on_flags(args)) == 2 and not notes_on_flags(args, judges=True)
    truthfulqa = find_benchmark("truthfulqa")
    assert truthfulqa.judges(truthfulqa.options(gpt_judge_model_name="gpt-9")) == ["gpt-9"]
    assert not truthfulqa.judges(truthfulqa.options())


def test_the_slow_tokenizer_is_a_quirk_in_the_result(tulu, work, tmp_path):
    model = write_model(tmp_path / "model")
    status, err = tulu(*REPLAY, "--tokenizer", model, "--use_slow_tokenizer")
    assert status == 0, err
    assert result(work / "results" / "gsm_chat")[1]["quirks"]["slow_tokenizer"] == "paper"


@pytest.mark.parametrize(
    ("flags", "at_once"),
    [((), 8), (("--eval_batch_size", "20"), 20), (("--batch_size", "9", "--concurrency", "3"), 3)],
)
def test_an_endpoint_is_asked_as_many_at_once_as_a_batch_has(flags, at_once):
    args = evaluate_parser().parse_args([*CHAT, *flags])
    assert eval_models.open_answerer(args).backend(1, 1)._concurrency == at_once


def test_every_flag_is_known_here():
    """A new flag of a run is to be followed by all who answer, or to stand in the table above."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False)
    add_run_flags(parser)
    by_all = {"model", "engine", "replay", "chat", "compat", "quirk", "limit", "ids", "seed",
              "cache", "log_format", "allow_code_execution", "allow_unsafe_execution", "batch_size",
              "gptq", "load_in_8bit", "use_vllm", "api"}  # fmt: skip
    by_some = {"step", "base", "add_bos", "use_slow_tokenizer", "tokenizer", "max_length", "dtype",
               "chat_formatting_function", "base_url", "concurrency", "requests_per_minute",
               "quantize", "replicas", "tensor"}  # fmt: skip
    assert {action.dest for action in parser._actions} == by_all | by_some


def notes(name, folder=".", **options):
    benchmark = find_benchmark(name)
    setting = context(benchmark, folder, benchmark.options(**options))
    return " ".join(benchmark.notes([], setting))


def test_settings_that_do_nothing_are_said():
    said = notes("truthfulqa", metrics=("mc",), gpt_info_model_name="x")
    assert said == "--gpt_info_model_name is not asked: --metrics has no info"
    assert notes("truthfulqa", metrics=("mc",)) == ""
    assert "passages are shown whole, not their first 512 tokens" in notes("tydiqa")
    assert notes("tydiqa", max_context_length=0) == notes("tydiqa", no_context=True) == ""
    assert "zero_shot_chat shows no example" in notes("gsm", zero_shot_chat=True)
    assert notes("gsm", zero_shot_chat=True, n_shot=0) == notes("gsm") == ""


def test_instructions_are_asked_in_chat_format_alone(tmp_path, capsys):
    row = {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": " pass"}
    row |= {"test": "def check(f): pass", "entry_point": "f"}
    file = write_jsonl(tmp_path / "HumanEval.jsonl", [row])
    pack = write_jsonl(tmp_path / "pack.jsonl", [{"task_id": "Python/0", "instruction": "Do!"}])
    words = ["--data_file", file, "--data_file_hep", pack, "--allow_code_execution"]
    words += ["--save_dir", tmp_path / "out"]
    for who, advice in ((("--replay", file), "add --use_chat_format"), (CHAT, "leave it out")):
        assert run_benchmark("codex_humaneval", [str(word) for word in [*words, *who]]) == 2
        err = capsys.readouterr().err
        assert "instructions are questions in chat format - got" in err and advice in err, err


@pytest.fixture
def predict(tmp_path, capsys):
    """Runs `python -m eval.predict` on a line; its exit status and what it said."""
    answers = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "one", "output": "ONE"}])

    def run(*flags, line=None, who=("--replay", answers)):
        file = write_jsonl(tmp_path / "in.jsonl", [line or {"id": "a", "prompt": "one"}])
        words = ["--input_files", file, "--output_file", tmp_path / "out.jsonl", *who, *flags]
        return run_predict([str(word) for word in words]), capsys.readouterr().err

    return run


def test_predict_says_what_does_nothing(predict):
    status, err = predict("--temperature", 0.5, "--load_in_float16")
    assert status == 0
    assert "note --temperature and --top_p do nothing without --do_sample" in err
    assert "note --load_in_float16 is not done: weights are float32" in err
    assert "do nothing" not in predict("--temperature", 0.5, "--do_sample")[1]


def test_predict_refuses_what_it_cannot_follow(predict):
    status, err = predict("--allow_code_execution")
    assert status == 2 and "flag is of benchmarks alone - at --allow_code_execution" in err
    status, err = predict("--chat_formatting_function", FUNCTION)
    assert status == 2 and "without chat format changes nothing" in err
    messages = [{"role": r, "content": "x"} for r in ("user", "assistant", "user")]
    status, err = predict(line={"id": "a", "messages": messages}, who=CHAT)
    assert status == 2 and "line is a conversation, and an endpoint is asked one question" in err


def test_flags_that_contradict_each_other_are_refused(capsys):
    """The later one was followed without a word."""
    with pytest.raises(SystemExit, match="2"):
        evaluate_parser().parse_args(["gsm_chat", *REPLAY, "--use_chat_format", "--no_chat_format"])
    assert "not allowed with argument --use_chat_format" in capsys.readouterr().err
