"""`tulu eval` and `python -m eval...`: on answers from files."""

import hashlib
import json

import pytest

from eval.harness.registry import all_quirks, benchmarks, suites, tasks
from tests.eval.asking import read_jsonl, result, write_jsonl
from tests.eval.harness.endpoint_server import Server
from tulu_jax.cli.evaluate import run_benchmark, run_predict
from tulu_jax.cli.main import main

NUMBERS = range(6)


def question(n):
    return f"Number {n}?"


@pytest.fixture
def data(tmp_path):
    """A folder of evaluation data that has GSM8K alone."""
    (tmp_path / "data" / "gsm").mkdir(parents=True)
    rows = [{"question": question(n), "answer": f"So. #### {n}"} for n in NUMBERS]
    write_jsonl(tmp_path / "data" / "gsm" / "test.jsonl", rows)
    return tmp_path / "data"


@pytest.fixture
def answers(tmp_path):
    """Answers to five of the six questions, the last one wrong."""
    lines = [{"prompt": question(n), "output": f"It is {n % 4}."} for n in range(5)]
    return write_jsonl(tmp_path / "answers.jsonl", lines)


@pytest.fixture
def tulu(tmp_path, capsys, one_parser):
    """Runs `tulu eval`; its exit status and what it printed."""

    def run(*words):
        status = main(["eval", *map(str, words)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def gsm(tulu, data, answers, tmp_path):
    """Runs gsm_chat on the answers."""

    def run(*words):
        return tulu("gsm_chat", "--data_dir", data, "--save_dir", tmp_path / "out",
                    "--replay", answers, "--no_chat_format", *words)  # fmt: skip

    return run


def test_list_names_every_task_and_suite(tulu):
    status, out, _ = tulu("list")
    assert status == 0
    for name, benchmark in benchmarks().items():
        assert f"{name}  {benchmark.title}" in out
    assert all(f"  {name} " in out or f"  {name}\n" in out for name in tasks())
    assert all(f"suite {name}: {' '.join(members)}" in out for name, members in suites().items())


def test_quirks_names_every_quirk_with_both_behaviours(tulu):
    status, out, _ = tulu("quirks")
    assert status == 0 and len(all_quirks()) > 10
    for name, (benchmark, quirk) in all_quirks().items():
        shown = f"{name} ({benchmark}): {quirk.line}\n  paper  {quirk.paper}\n"
        assert f"{shown}  fixed  {quirk.fixed}\n" in out


def test_show_prints_prompts_without_a_model(tulu, data):
    status, out, _ = tulu("show", "gsm_chat", "--n", 2, "--data_dir", data, "--no_chat_format")
    assert status == 0
    assert out.count("== ") == 2 and "== 0  gold '0'\nNumber 0?\n-- Generate {" in out
    status, out, _ = tulu("show", "gsm_chat", "--data_dir", data, "--ids", 3, "--use_chat_format")
    assert "<|user|>" in out and "Number 3?" in out and "Number 0?" not in out


def test_show_prints_tokens_where_a_tokenizer_is_named(tulu, data):
    from tasks import demo

    flags = ("--data_dir", data, "--no_chat_format", "--tokenizer", demo.TOKENIZER_DIR)
    status, out, _ = tulu("show", "gsm_chat", *flags)
    assert status == 0 and " tokens: <s>:1 " in out


def test_a_run_writes_its_results_and_tells_what_failed(gsm, tmp_path, data, answers):
    status, out, err = gsm()
    assert status == 1 and "gsm_chat" in out and "80.0" in out
    assert "1 instances failed and are in no metric" in err
    metrics, run, rows = result(tmp_path / "out" / "gsm_chat")
    assert (metrics["exact_match"], metrics["n"], run["guards"]["failures"]) == (0.8, 5, ["5"])
    assert [row["correct"] for row in rows[:5]] == [True, True, True, True, False]
    assert rows[5]["error"] == "not in answers.jsonl: no such prompt, sample 0 is asked for"
    assert run["task"] == "gsm_chat" and run["compat"] == "fixed" and run["limit"] is None
    assert run["data"] == str(data / "gsm") and len(run["data_sha256"]) == 64
    assert run["model"]["path"] == str(answers) and run["versions"]["tulu_jax"]
    assert run["settings"]["zero_shot_chat"] is True and run["command"] and run["time"]["finished"]


def test_results_of_another_model_are_not_replaced_in_silence(gsm, answers, tmp_path):
    assert "are replaced" not in gsm()[2]
    assert "are replaced" not in gsm()[2], "the same again"
    other = tmp_path / "others.jsonl"
    other.write_bytes(answers.read_bytes())
    said = " ".join(gsm("--replay", other)[2].split())
    assert f"note gsm_chat: results of {answers}, or of another step" in said
    assert f"are in {tmp_path / 'out' / 'gsm_chat'} and are replaced: give another --save_" in said


def test_results_of_other_settings_are_not_replaced_in_silence(gsm, tmp_path):
    gsm()
    said = " ".join(gsm("--option", "gsm.max_num_examples=3", "--limit", "2")[2].split())
    assert "results of another max_num_examples, limit are in" in said and "are replaced" in said
    said = " ".join(gsm("--option", "gsm.max_num_examples=3", "--compat", "paper")[2].split())
    assert "results of another compat are in" in said
    assert "are replaced" not in gsm("--option", "gsm.max_num_examples=3", "--compat", "paper")[2]


def test_results_of_another_model_of_an_endpoint_are_not_replaced_in_silence(tulu, data, tmp_path):
    server, asked = Server(), []
    try:
        for name in ("old", "old", "new"):
            _, _, said = tulu(
                "gsm_chat", "--data_dir", data, "--save_dir", tmp_path / "out", "--limit", "1",
                "--engine", name, "--base_url", server.url,
            )  # fmt: skip
            kept = "1 of 1 answers were kept from an earlier run, of whatever the endpoint" in said
            asked.append(len(server.seen))
            assert kept is (asked == [1, 1])
            replaced = "note gsm_chat: results of old, or of another step" in " ".join(said.split())
            assert replaced is (name == "new")
    finally:
        server.close()


def test_the_quirks_in_force_are_in_the_result(gsm, tmp_path):
    gsm("--compat", "paper", "--quirk", "gsm_numbers=fixed")
    _, run, _ = result(tmp_path / "out" / "gsm_chat")
    assert run["quirks"]["gsm_numbers"] == "fixed" and run["compat"] == "paper"
    assert run["quirks"]["special_text"] == "paper"


def test_limits_and_ids(gsm, tmp_path):
    assert gsm("--ids", "1", "4")[0] == 0
    assert [row["id"] for row in result(tmp_path / "out" / "gsm_chat")[2]] == ["1", "4"]
    gsm("--limit", "2")
    _, run, rows = result(tmp_path / "out" / "gsm_chat")
    ranked = sorted(map(str, NUMBERS), key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    assert {row["id"] for row in rows} == set(ranked[:2]) and run["limit"] == 2


def test_settings_of_a_task_can_be_changed(tulu, data, answers, tmp_path):
    status, out, _ = tulu("show", "gsm_cot", "--data_dir", data, "--no_chat_format",
                          "--option", "gsm.n_shot=1")  # fmt: skip
    assert status == 0 and out.count("Question: ") == 2


def test_an_option_of_a_benchmark_that_is_not_asked_is_refused(tulu, data, answers):
    """It did nothing, and nobody said so."""
    flags = ["gsm_chat", "--data_dir", data, "--option", "mmlu.ntrain=1"]
    for words in ([*flags, "--replay", answers], ["show", *flags]):
        status, _, said = tulu(*words)
        assert status == 2 and (
            "option is of a benchmark that is not asked - got 'mmlu.ntrain=1' at --option - "
            "expected gsm.NAME=VALUE - leave it out, or name a task of mmlu"
        ) in " ".join(said.split())


def test_several_tasks_share_what_was_kept(tulu, gsm, data, answers, tmp_path):
    gsm()
    kept = (tmp_path / "out" / "answers.jsonl").read_text()
    assert len(kept.splitlines()) == 5
    gsm()
    assert (tmp_path / "out" / "answers.jsonl").read_text() == kept
    other = tmp_path / "other"
    tulu("gsm_chat", "--data_dir", data, "--save_dir", other, "--replay", answers,
         "--no_chat_format", "--cache", tmp_path / "out" / "answers.jsonl")  # fmt: skip
    assert (tmp_path / "out" / "answers.jsonl").read_text() == kept
    assert not (other / "answers.jsonl").exists()
    assert result(other / "gsm_chat")[0] == result(tmp_path / "out" / "gsm_chat")[0]


def test_score_grades_again(gsm, tulu, tmp_path):
    gsm()
    folder = tmp_path / "out" / "gsm_chat"
    before, run, rows = result(folder)
    status, _, said = tulu("score", tmp_path / "out")
    assert status == 1 and "note gsm_chat: 1 of 6 instances failed" in " ".join(said.split())
    after, again, graded = result(folder)
    assert after == before and graded == rows and again.pop("scored_again")
    assert again == run
    rows[4]["output"] = "No, it is 4."
    write_jsonl(folder / "predictions.jsonl", rows)
    status, out, _ = tulu("score", folder, "--compat", "paper")
    assert status == 1 and "100.0" in out
    metrics, again, _ = result(folder)
    assert metrics["exact_match"] == 1.0 and again["compat"] == "paper"
    assert set(again["quirks"].values()) == {"paper"} and again["chat"] is False
    tulu("score", folder, "--quirk", "gsm_numbers=fixed")
    quirks = result(folder)[1]["quirks"]
    assert quirks.pop("gsm_numbers") == "fixed" and set(quirks.values()) == {"paper"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: {"benchmark": "gsm"}, "run.json is not whole - got no task, quirks, compat"),
        (lambda run: run | {"quirks": []}, "run.json is not whole - got no quirks"),
        (lambda run: run | {"model": {}}, "got no path of the model"),
        (lambda run: run | {"benchmark": "gms"}, "unknown benchmark - got 'gms'"),
        (lambda run: run | {"settings": {"shots": 1}}, "settings are not this version's"),
        (lambda run: [run], "run.json is not a JSON object"),
    ],
)
def test_score_refuses_a_damaged_result(gsm, tulu, tmp_path, change, message):
    gsm()
    path = tmp_path / "out" / "gsm_chat" / "run.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    before = path.read_text()
    status, _, err = tulu("score", tmp_path / "out")
    assert status == 2 and message in err
    assert path.read_text() == before


def test_score_of_no_results(tulu, tmp_path):
    status, _, err = tulu("score", tmp_path)
    assert status == 2 and f"no results - at {tmp_path} - expected a folder with run.json" in err


WHO = ("--replay", "answers.jsonl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (WHO, "no task to evaluate - expected TASK... or --suite NAME - see tulu eval list"),
        (("gsm", *WHO), "unknown task - got 'gsm' - expected alpaca_eval"),
        (("show", "gsm"), "unknown task - got 'gsm'"),
        (("gsm_cot",), "who answers is not clear - got nobody - expected one of --model, --engine"),
        (("gsm_cot", "--engine", "m", *WHO), "who answers is not clear - got --engine, --replay"),
        (("gsm_cot", "--gptq", *WHO), "GPTQ models cannot be loaded - at --gptq - evaluate the"),
        (("gsm_cot", "--quirk", "gsm=paper", *WHO), "unknown quirk - got 'gsm' at --quirk"),
        (("gsm_cot", "--quirk", "gsm_numbers", *WHO), "unknown behaviour of a quirk"),
        (("gsm_chat", "--ids", "99", "--no_chat_format", *WHO), "no such instance - got ['99']"),
        (("gsm_chat", "--replay", "none"), "file is missing - at"),
        (("codex_eval_temp_0.1", *WHO), "--allow_code_execution"),
        (("mmlu_0shot", *WHO), "tulu data download --eval"),
        (
            ("gsm_cot", "--use_chat_format", "--chat_formatting_function", "no.such", *WHO),
            "no.such",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_cannot_be_done_is_refused(tulu, data, answers, monkeypatch, words, message):
    monkeypatch.chdir(data.parent)
    flags = () if words == ("show", "gsm") else ("--data_dir", data, "--save_dir", "out")
    status, _, err = tulu(*words, *flags)
    assert status == 2 and message in err, err
    assert not list(data.parent.glob("out/*/run.json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--suite", "tulu9"), "invalid choice: 'tulu9'"),
        (("gsm_cot", "--compat", "old"), "invalid choice: 'old'"),
        (("gsm_cot", "--limit", "0"), "--limit"),
        (("show",), "TASK"),
        (("list", "all"), "unrecognized arguments: all"),
    ],
)
def test_flags_that_are_none_are_refused(tulu, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        tulu(*words)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_flags_of_other_programs_are_told(gsm):
    _, _, err = gsm("--load_in_8bit", "--use_vllm")
    assert "note --load_in_8bit is not done: weights are float32" in err
    assert "note --use_vllm does nothing here" in err


def test_one_benchmark_takes_the_flags_of_the_reference(data, answers, tmp_path, capsys):
    flags = ["--data_dir", data / "gsm", "--save_dir", tmp_path / "one", "--replay", answers]
    flags += ["--n_shot", 0, "--zero_shot_chat", "--max_num", 3, "--eval_batch_size", 20]
    write_jsonl(answers, [{"prompt": question(n), "output": str(n)} for n in NUMBERS])
    status = run_benchmark("gsm", [str(flag) for flag in flags])
    assert status == 0, capsys.readouterr().err
    metrics, run, rows = result(tmp_path / "one")
    assert (
        metrics["exact_match"] == 1.0
        and run["task"] == run["benchmark"] == "gsm"
        and len(rows) == 3
        and run["chat"] is False
    )
    assert run["settings"]["max_num_examples"] == 3
    assert (tmp_path / "one" / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "none"], "none"),
        (["--model_name", "none", "--tokenizer", "none"], "none"),
        (["--gptq", "--replay", "x"], "GPTQ models cannot be loaded"),
        (["--openai", "m", "--replay", "x"], "who answers is not clear - got --engine, --replay"),
        (["--n_shot", "99", "--replay", "x"], "n_shot is out of range"),
    ],
)
def test_one_benchmark_refuses_what_cannot_be_done(data, tmp_path, capsys, flags, message):
    where = ["--data_dir", str(data / "gsm"), "--save_dir", str(tmp_path / "one")]
    assert run_benchmark("gsm", [*where, *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("eval.gsm.run_eval: ") and message in err


def test_one_benchmark_with_the_options_of_a_task_has_its_name(data, answers, tmp_path):
    flags = ["--data_dir", data / "gsm", "--save_dir", tmp_path / "one", "--replay", answers]
    run_benchmark("gsm", [*map(str, flags), "--n_shot", "0", "--zero_shot_chat"])
    assert result(tmp_path / "one")[1]["task"] == "gsm_chat"


@pytest.fixture
def predict(tmp_path, capsys):
    """Runs `python -m eval.predict` on two files; its status, the lines, and what it said."""
    first = [{"id": "a", "prompt": "one"}, {"id": "b", "prompt": "two", "source": "mine"}]
    messages = [{"role": "user", "content": "three"}]
    second = [{"id": "a", "messages": messages}, {"id": "d", "prompt": "one"}]
    files = [write_jsonl(tmp_path / f"{n}.jsonl", rows) for n, rows in enumerate((first, second))]
    chat = "<|user|>\n{}\n<|assistant|>\n".format
    lines = [{"prompt": chat(text), "output": text.upper()} for text in ("one", "three")]
    answers = write_jsonl(tmp_path / "answers.jsonl", lines)
    out = tmp_path / "deep" / "out.jsonl"

    def run(*flags, inputs=files):
        words = ["--input_files", *inputs, "--output_file", out, "--replay", answers]
        status = run_predict([str(word) for word in [*words, *flags]])
        return status, read_jsonl(out) if out.exists() else None, capsys.readouterr().err

    run.answers, run.lines, run.chat, run.files = answers, lines, chat, [first, second]
    return run


def test_predict_answers_all_files_and_goes_on(predict):
    status, rows, err = predict("--use_chat_format")
    assert status == 1 and "3 of 4 answers -> " in err
    assert rows == [
        {"id": "a", "prompt": "one", "output": "ONE"},
        {**predict.files[0][1], "output": None,
         "error": "not in answers.jsonl: no such prompt, sample 0 is asked for"},
        {**predict.files[1][0], "output": "THREE"},
        {"id": "d", "prompt": "one", "output": "ONE"},
    ]  # fmt: skip
    more = [*predict.lines, {"prompt": predict.chat("two"), "output": "TWO"}]
    write_jsonl(predict.answers, more)
    status, rows, err = predict("--use_chat_format")
    assert status == 0 and [row["output"] for row in rows] == ["ONE", "TWO", "THREE", "ONE"]
    assert "error" not in rows[1] and "4 of 4 answers -> " in err


def test_predict_asks_nothing_twice(predict, monkeypatch):
    from eval.harness.replay import ReplayBackend

    predict("--use_chat_format")
    asked, answer = [], ReplayBackend.answer

    def listen(self, asks, on_done):
        asked.extend(ask.prompt.text for ask in asks)
        answer(self, asks, on_done)

    monkeypatch.setattr(ReplayBackend, "answer", listen)
    predict("--use_chat_format", "--batch_size", "1")
    assert asked == [predict.chat("two")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "line has messages, which plain text cannot say - at "),
        (("--use_chat_format", "--limit", "1"), "flag is of benchmarks alone - at --limit"),
        (("--use_chat_format", "--ids", "a"), "flag is of benchmarks alone - at --ids"),
        (("--use_chat_format", "--quirk", "x=paper"), "unknown quirk - got 'x'"),
        (("--use_chat_format", "--engine", "m"), "who answers is not clear"),
    ],
)
def test_predict_refuses_what_it_cannot_do(predict, flags, message):
    status, rows, err = predict(*flags)
    assert (status, rows) == (2, None) and f"eval.predict: {message}" in err


def test_predict_refuses_a_damaged_file(predict, tmp_path):
    (tmp_path / "cut.jsonl").write_text('{"id": "a", "prompt": "one"}\n{"id"')
    status, rows, err = predict("--use_chat_format", inputs=[tmp_path / "cut.jsonl"])
    assert (status, rows) == (2, None) and "line is not JSON" in err and "cut.jsonl line 2" in err
