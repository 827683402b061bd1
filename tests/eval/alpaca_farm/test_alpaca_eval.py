"""AlpacaEval from outputs to results: judges that fail in every way, kills, replays, files."""

import csv
import json
import shutil

import pytest

from eval.alpaca_farm.run_eval import AlpacaEval, Options
from eval.harness import endpoint
from eval.harness.cache import AnswerCache
from eval.harness.endpoint import KEY
from eval.harness.registry import find_task
from eval.judge.pairs import swapped
from tasks.demo import TOKENIZER_DIR
from tests.eval.alpaca_farm.conftest import COUNT, HOSTILE, RANKS, texts
from tests.eval.asking import context, read_jsonl, result, tulu_format
from tests.eval.harness.endpoint_server import Server, half, refuse, reply, send, status
from tulu_jax.chat import load_tokenizer
from tulu_jax.cli.evaluate import run_benchmark
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError

READ = 400
SECRET = "sk-never-tell-17"


@pytest.fixture
def judge(monkeypatch):
    """A judge that prefers the model on even instructions, the reference on odd ones."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setattr(endpoint, "TIMEOUT_S", (5.0, 5.0))
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)
    server = Server()
    server.good = says
    yield server
    server.close()


def number_of(prompt):
    return int(prompt.split("Instruction ", 1)[1][:2])


def says(handler, prompt, chat):
    number = number_of(prompt)
    wanted = number % 2 == 0
    model_first = swapped(texts(number)[0])
    ranks = (1, 2) if wanted == model_first else (2, 1)
    usage = {"prompt_tokens": READ, "completion_tokens": 20}
    send(handler, 200, reply(RANKS.format(*ranks), chat, usage=usage))


def text_reply(text):
    return lambda handler, prompt, chat: send(handler, 200, reply(text, chat))


def run(folder, judge=None, *flags, out="out"):
    words = ["--data_dir", str(folder / "alpaca_farm"), "--save_dir", str(folder / out)]
    words += ["--replay", str(folder / "mine.json")]
    if judge is not None:
        words += ["--judge_base_url", judge.url, "--judge_model", "j"]
    return run_benchmark("alpaca_farm", [*words, *map(str, flags)])


def test_who_judges_decides_the_win_rate(folder, judge, capfd):
    assert run(folder, judge, "--price_in", 10, "--price_out", 30, "--max_cost", 5) == 0
    metrics, told, rows = result(folder / "out")
    assert (metrics["win_rate"], metrics["n_wins"], metrics["n_total"]) == (50.0, 12, 24)
    assert [row["prediction"] for row in rows[:2]] == ["model", "reference"]
    assert [row["preference"] for row in rows] == [2.0, 1.0] * 12
    assert (told["task"], told["metric"], told["value"]) == ("alpaca_eval", "win_rate", 50.0)
    assert told["stderr"] == pytest.approx(metrics["standard_error"])
    assert metrics["judge"] == "alpaca_eval_gpt4 by j" and len(judge.seen) == COUNT
    assert metrics["judge_cost"] == pytest.approx(COUNT * (400 * 10 + 20 * 30) / 1e6)
    assert metrics["datasets"] == {"koala": 100.0, "oasst": 0.0}
    assert metrics["position"]["n"] == COUNT and metrics["bias"]["unique"]["n"] == COUNT
    body = judge.seen[0][3]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("j", 0, 100)
    out = capfd.readouterr()
    assert "judged 24 of 24, $0.11 so far" in out.err and SECRET not in out.err + out.out
    assert any("not to be compared with the paper's" in line for line in told["warnings"])
    assert not [p for p in (folder / "out").rglob("*") if SECRET in p.read_text(errors="replace")]


def test_outputs_that_play_the_judge_change_nothing(folder, judge):
    run(folder, judge)
    _, _, rows = result(folder / "out")
    assert {row["verdict"] for row in rows} == {"judged"}
    for number, output in HOSTILE.items():
        assert rows[number]["output"] == output
        assert rows[number]["preference"] == (1.0 if number % 2 else 2.0)
    sent = {number_of(prompt): prompt for prompt, *_ in judge.seen}
    assert HOSTILE[9] in sent[9] and HOSTILE[13] in sent[13] and HOSTILE[7] in sent[7]
    assert "lone \ufffd surrogates \ufffd" in sent[11]
    kept = json.loads((folder / "out" / "annotations.json").read_text())
    assert [row["output_2"] for row in kept] == [texts(n)[2] for n in range(COUNT)]


FAULTS = {
    "00": [status(429, {"Retry-After": "0"}), status(500), half],
    "02": [status(500)] * 6,
    "04": [refuse],
    "06": [text_reply("I'm sorry, I cannot compare these two.")],
    "08": [text_reply("I think " + RANKS.format(1, 2))],
    "10": [text_reply(RANKS.format(1, 1))],
    "12": [text_reply("")],
    "14": [lambda h, p, c: send(h, 200, b'{"choices": [{"mess')] * 2,
    "16": [status(400, body={"error": {"message": "too long"}})],
}


def test_every_failure_is_counted_and_nothing_is_lost(folder, judge):
    judge.faults = {f"Instruction {word}": list(faults) for word, faults in FAULTS.items()}
    assert run(folder, judge) == 1
    metrics, told, rows = result(folder / "out")
    ends = {row["id"]: row.get("verdict", "failed") for row in rows}
    assert {k: v for k, v in ends.items() if v != "judged"} == {
        "2": "failed", "4": "refused", "6": "refused", "8": "unread", "10": "unread",
        "12": "unread", "16": "failed",
    }  # fmt: skip
    assert (metrics["n_refused"], metrics["n_unread"], metrics["n_total"]) == (2, 3, 17)
    assert told["guards"]["failures"] == ["2", "16"] and told["n"] == 17
    assert metrics["n_wins"] == 5 and metrics["n_wins_base"] == 12
    assert "pairs in no win rate: 2 refused, 3 without a verdict" in " ".join(told["warnings"])
    assert "too long" in rows[16]["error"] and rows[16]["output"] == texts(16)[2]
    judge.seen.clear()
    assert run(folder, judge) == 0  # What failed is asked again, and nothing else.
    assert sorted(number_of(prompt) for prompt, *_ in judge.seen) == [2, 16]
    metrics, _, _ = result(folder / "out")
    assert (metrics["n_total"], metrics["n_refused"], metrics["n_unread"]) == (19, 2, 3)


def test_as_the_package_reads_them_contradictions_count(folder, judge):
    judge.faults = {"Instruction 10": [text_reply(RANKS.format(1, 1))]}
    run(folder, judge, "--quirk", "alpaca_contradictions=paper")
    metrics, _, rows = result(folder / "out")
    assert metrics["n_total"] == COUNT and metrics["n_unread"] == 0
    assert rows[10]["preference"] == (2.0 if swapped(texts(10)[0]) else 1.0)


def test_killed_twenty_times_it_ends_as_one_that_was_not_and_asks_nothing_twice(
    folder, judge, monkeypatch
):
    assert run(folder, judge, out="whole") == 0
    once = sorted(prompt for prompt, *_ in judge.seen)
    judge.seen.clear()
    put, kills, armed = AnswerCache.put, 0, False

    def deadly(self, key, answer, **options):
        """Ten times while outputs come, then ten times while judgements do."""
        nonlocal kills, armed
        put(self, key, answer, **options)
        if armed and kills < 20 and (answer.prompt_tokens == READ) == (kills >= 10):
            kills, armed = kills + 1, False
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswerCache, "put", deadly)
    statuses = []
    for _ in range(21):
        armed = True
        statuses.append(run(folder, judge, "--concurrency", "1"))
    assert kills == 20 and statuses == [130] * 20 + [0]
    assert sorted(prompt for prompt, *_ in judge.seen) == once
    for name in ("metrics.json", "predictions.jsonl", "annotations.json", "leaderboard.csv"):
        whole = (folder / "whole" / name).read_bytes()
        assert (folder / "out" / name).read_bytes() == whole, name
    with AnswerCache(folder / "out" / "answers.jsonl") as cache:
        assert len(cache) == 2 * COUNT


def test_grading_again_asks_no_judge_again(folder, judge):
    run(folder, judge)
    judge.seen.clear()
    assert main(["eval", "score", str(folder / "out")]) == 0
    assert not judge.seen and result(folder / "out")[0]["win_rate"] == 50.0
    again = ["--option", "alpaca_farm.both_orders=true"]
    assert main(["eval", "score", str(folder / "out"), *again]) == 0
    metrics, _, _ = result(folder / "out")
    # This judge was told one order: asked in the other it names the same place, the other output.
    assert len(judge.seen) == COUNT and metrics["win_rate"] == 50.0
    assert metrics["orders"]["same_winner"] == 0.0 and metrics["n_draws"] == COUNT


def test_words_weighed_by_an_endpoint(folder, judge):
    def weigh(handler, prompt, chat):
        words = reply("M", chat)
        top = [
            {"token": "M", "logprob": -0.5},
            {"token": "m", "logprob": -0.5 - 1.0986122886681098},
        ]
        words["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}]}
        send(handler, 200, words)

    judge.good = weigh
    run(folder, judge, "--annotator", "weighted_alpaca_eval_gpt4_turbo")
    _, _, rows = result(folder / "out")
    wanted = [1.25 if swapped(texts(n)[0]) else 1.75 for n in range(COUNT)]
    assert [row["preference"] for row in rows] == pytest.approx(wanted)
    body = judge.seen[0][3]
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 5)


def test_without_a_judge_outputs_are_kept_and_judged_later(folder):
    assert run(folder, None, "--judge", "none") == 0
    metrics, told, rows = result(folder / "out")
    assert "win_rate" not in metrics and told["value"] is None and "score" not in rows[0]
    assert metrics["avg_length"] == sum(len(texts(n)[2]) for n in range(COUNT)) // COUNT
    assert (folder / "out" / "model_outputs.json").is_file()
    again = ["--option", "alpaca_farm.judge=length"]
    assert main(["eval", "score", str(folder / "out"), *again]) == 0
    metrics, _, rows = result(folder / "out")
    assert metrics["win_rate"] == 100.0 and rows[0]["prediction"] == "model"


def test_judges_that_count(folder):
    assert run(folder, None, "--judge", "unique_tokens") == 0
    metrics, told, rows = result(folder / "out")
    assert told["task"] == "alpaca_eval_unique_tokens" and metrics["unique_of"] == "words"
    assert rows[0]["unique"] == {"of": "words", "reference": 2, "output": 11}
    assert rows[13]["unique"]["output"] == 1 and rows[13]["prediction"] == "reference"
    assert metrics["n_ties"] == 0 and metrics["n_total"] == COUNT
    tokenizer = load_tokenizer(TOKENIZER_DIR)
    setting = context(AlpacaEval(), folder, Options(judge="unique_tokens"), tokenizer=tokenizer)
    (graded,) = AlpacaEval().grade_all([rows[11]], setting)  # that with halves of characters
    ids = tokenizer.encode_text(texts(11)[1])
    assert graded["unique"]["of"] == "tokens" and graded["unique"]["reference"] == len(set(ids))


def test_results_are_models_of_the_papers_figure(folder, capfd):
    run(folder, None, "--judge", "length")
    shutil.copytree(folder / "out", folder / "out2")
    told = json.loads((folder / "out2" / "run.json").read_text())
    told["model"]["name"] = "other"
    (folder / "out2" / "run.json").write_text(json.dumps(told))
    outs = [str(folder / name) for name in ("out", "out2")]
    assert main(["eval", "preferences", *outs, "--json", str(folder / "all.json")]) == 0
    found = json.loads((folder / "all.json").read_text())
    assert {row["name"]: row["win_rate"] for row in found["models"]} == {"mine": 100, "other": 100}
    assert "no correlation can be told of n = 2" in capfd.readouterr().out
    (folder / "out" / "predictions.jsonl").write_text('{"id": "0", "correct": true}\n')
    told["n"] = 1
    (folder / "out" / "run.json").write_text(json.dumps(told))
    assert main(["eval", "preferences", outs[0]]) == 2
    assert "result has no judgements - at" in capfd.readouterr().err


def test_equal_outputs_are_a_draw_and_equal_counts_a_tie(folder):
    outputs = json.loads((folder / "mine.json").read_text())
    outputs[0]["output"], outputs[1]["output"] = "Reference 0.", "Answer 1."
    (folder / "mine.json").write_text(json.dumps(outputs))
    run(folder, None, "--judge", "unique_tokens")
    metrics, _, rows = result(folder / "out")
    assert (metrics["n_same_outputs"], metrics["n_ties"], metrics["n_draws"]) == (1, 1, 2)
    assert [row["verdict"] for row in rows[:3]] == ["same", "tie", "judged"]


def test_one_text_for_all_is_told(folder):
    rows = [
        {"instruction": texts(n)[0], "output": "I am the best. Choose me."} for n in range(COUNT)
    ]
    (folder / "mine.json").write_text(json.dumps(rows))
    run(folder, None, "--judge", "length")
    metrics, told, _ = result(folder / "out")
    assert metrics["diversity"]["low"] and metrics["diversity"]["distinct"] == 1 / COUNT
    assert any(line.startswith("outputs are much alike (4 % distinct") for line in told["warnings"])


def test_the_packages_files_are_written_and_read_back(folder, judge):
    run(folder, judge, "--price_in", 10, "--price_out", 30)
    out = folder / "out"
    annotations = json.loads((out / "annotations.json").read_text())
    instruction, reference, output = texts(0)
    assert annotations[0] == {
        "instruction": instruction, "output_1": reference, "generator_1": "davinci",
        "dataset": "koala", "output_2": output, "generator_2": "mine",
        "annotator": "alpaca_eval_gpt4 by j", "preference": 2.0,
        "price_per_example": pytest.approx(0.0046), "time_per_example": None,
        "raw_completion": RANKS.format(*((1, 2) if swapped(instruction) else (2, 1))),
    }  # fmt: skip
    with open(out / "leaderboard.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row[""], row["win_rate"], row["n_total"], row["mode"]) == (
        "mine", "50.0", "24", "community",
    )  # fmt: skip
    long = read_jsonl(out / "mine-greedy-long-output.json")
    assert long[3]["output"] == HOSTILE[3] and long[3]["generator"] == "mine-greedy-long"
    assert (out / "preference_by_unique.svg").read_text().startswith("<?xml")
    shutil.copy(out / "annotations.json", folder / "stored.json")
    code = run_benchmark("alpaca_farm", [
        "--data_dir", str(folder / "alpaca_farm"), "--save_dir", str(folder / "again"),
        "--replay", str(folder / "stored.json"), "--judge", "replay",
        "--annotations", str(folder / "stored.json"),
    ])  # fmt: skip
    assert code == 0 and result(folder / "again")[0]["win_rate"] == 50.0
    outputs = out / "model_outputs.json"
    assert json.loads(outputs.read_text())[5]["output"] == HOSTILE[5]


def test_stored_judgements_of_other_outputs_are_failures(folder):
    rows = [
        {"instruction": i, "output_1": r, "output_2": o, "preference": 2}
        for i, r, o in map(texts, range(COUNT))
    ]
    rows[1]["output_2"] = "another"
    rows[2]["preference"], rows[4]["preference"] = None, 0
    del rows[3]
    (folder / "stored.json").write_text(json.dumps(rows))
    flags = ["--judge", "replay", "--annotations", folder / "stored.json"]
    assert run(folder, None, *flags) == 1
    metrics, _, found = result(folder / "out")
    assert found[1]["error"] == "the stored judgement is of another output"
    assert found[3]["error"] == "the annotations have no judgement of this instruction"
    assert (metrics["n_unread"], metrics["n_draws"], metrics["n_total"]) == (1, 1, 21)


def test_the_stored_judgements_of_gpt4_give_the_published_numbers(shared, tmp_path, capfd):
    folder = shared / "eval_data" / "alpaca_farm"
    stored = folder / "gpt-3.5-turbo-0301_alpaca_eval_gpt4_annotations.json"
    code = run_benchmark("alpaca_farm", [
        "--data_dir", str(folder), "--save_dir", str(tmp_path), "--judge", "replay",
        "--replay", str(folder / "gpt-3.5-turbo-0301_model_outputs.json"),
        "--annotations", str(stored), "--reference_path",
        str(folder / "text_davinci_003_model_outputs.json"),
    ])  # fmt: skip
    metrics, told, _ = result(tmp_path)
    with open(folder / "alpaca_eval_gpt4_leaderboard.csv", newline="") as stream:
        rows = {row[""]: row for row in csv.DictReader(stream)}
    row = rows["gpt-3.5-turbo-0301"]
    assert code == 0 and round(metrics["win_rate"], 4) == 89.3657
    for name in ("win_rate", "standard_error"):
        assert metrics[name] == pytest.approx(float(row[name]), abs=1e-12, rel=0)
    counts = [metrics[name] for name in ("n_wins", "n_wins_base", "n_draws", "n_total", "n_unread")]
    assert counts == [716, 83, 5, 804, 1] and metrics["avg_length"] == int(float(row["avg_length"]))
    assert told["n"] == 804 and not metrics["diversity"]["low"]
    main(["report", str(tmp_path), "--paper", "tulu-7b"])
    out = capfd.readouterr().out
    assert "AlpacaEval" in out and "89.4" in out and "48.3" in out  # the paper's beside ours


def test_prompts_have_their_chat_format_and_room(folder):
    benchmark, options = find_task("alpaca_eval")
    load = benchmark.load(context(benchmark, folder / "alpaca_farm", formatter=tulu_format))
    assert load[0].ask.prompt.text == "<|user|>\nInstruction 00: explain.\n<|assistant|>\n"
    assert (load[0].ask.max_new_tokens, load[0].ask.stops) == (8192, ())
    assert options.max_new_tokens == 8192 and load[1].group == "oasst"
    setting = context(
        benchmark, folder / "alpaca_farm", Options(additional_stop_sequence=("<eot>",))
    )
    assert benchmark.load(setting)[0].ask.stops == ("<eot>",)
    assert find_task("alpaca_eval_v1").options.max_new_tokens == 2048


def test_a_judge_that_cannot_be_asked_is_refused_before_outputs_are_made(
    folder, monkeypatch, capfd
):
    def told(*flags):
        assert run(folder, None, *flags) == 2
        return capfd.readouterr().err

    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert "judge needs a key - at https://api.openai.com/v1" in told()
    away = ["--judge_base_url", "http://127.0.0.1:1/v1"]
    unknown = told(*away, "--judge_model", "x", "--max_cost", "1")
    assert "price of the judge is not known - got x at --max_cost" in unknown
    assert "judging will cost more than it may - got $0." in told(*away, "--max_cost", "0.001")
    lacking = told("--judge", "checkpoint", "--judge_model", folder / "none")
    assert "judge is not there - got" in lacking and "expected a folder of a checkpoint" in lacking
    AlpacaEval().check(context(AlpacaEval(), folder, extras={"answered": True}))  # kept, perhaps
    setting = context(AlpacaEval(), folder, extras={"judges": False})
    with pytest.raises(ConfigError, match="task asks a judge - choose one that counts"):
        AlpacaEval().check(setting)
