"""Judges that fail in every way, are killed, and are judged themselves by hostile outputs."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from eval.alpaca_farm.run_eval import AlpacaEval
from eval.harness import endpoint
from eval.harness.cache import AnswerCache
from eval.harness.endpoint import KEY
from eval.judge.pairs import swapped
from tests.eval.alpaca_farm.conftest import (
    COUNT,
    HOSTILE,
    RANKS,
    READ,
    number_of,
    run,
    text_reply,
    texts,
)
from tests.eval.asking import context, result
from tests.eval.harness.endpoint_server import half, refuse, reply, send, status
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError


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


def hang(handler, prompt, chat):
    """Says nothing for longer than anybody waits."""
    time.sleep(2.5)
    handler.close_connection = True


FAULTS = {
    "00": [status(429, {"Retry-After": "0"}), status(500), half, hang],
    "02": [status(500)] * 6,
    "04": [refuse],
    "06": [text_reply("I'm sorry, I cannot compare these two.")],
    "08": [text_reply("I think " + RANKS.format(1, 2))],
    "10": [text_reply(RANKS.format(1, 1))],
    "12": [text_reply("")],
    "14": [lambda h, p, c: send(h, 200, b'{"choices": [{"mess')] * 2,
    "16": [status(400, body={"error": {"message": "too long"}})],
}


def test_every_failure_is_counted_and_nothing_is_lost(folder, judge, monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT_S", (2.0, 2.0))
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


def test_a_judge_of_another_name_that_tells_no_tokens(folder, judge):
    """Its cost is not known then; it was $0.00."""

    def unnamed(handler, prompt, chat):
        said = reply(RANKS.format(1, 2), chat)
        del said["usage"]
        send(handler, 200, {**said, "model": "gpt-4o-mini"})

    judge.good = unnamed
    assert run(folder, judge) == 0
    metrics, told, rows = result(folder / "out")
    assert metrics["n_total"] == COUNT and "judge_cost" not in metrics
    (note,) = [line for line in told["warnings"] if "by another model" in line]
    assert note.endswith(f"verdicts are by another model than asked: 'gpt-4o-mini' ({COUNT})")
    assert rows[0]["judged_by"] == ["gpt-4o-mini"]


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


KILLED = """
import json, os, signal, sys
from eval.harness import endpoint
from eval.harness.cache import AnswerCache
from tulu_jax.cli.evaluate import run_benchmark

warm, words, read = json.loads(sys.argv[1])
assert run_benchmark("alpaca_farm", warm) == 0  # imports everything once
put = AnswerCache.put
endpoint.TIMEOUT_S, endpoint.FIRST_WAIT_S = (20.0, 20.0), 0.001
statuses = []
for kill in range(21):
    def deadly(self, key, answer, **options):
        put(self, key, answer, **options)
        if kill < 20 and (answer.prompt_tokens == read) == (kill >= 10):
            os.kill(os.getpid(), signal.SIGKILL)
    AnswerCache.put = deadly
    pid = os.fork()
    if not pid:
        os._exit(run_benchmark("alpaca_farm", words))
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(statuses)
"""
"""Runs an evaluation that is killed as soon as an answer is kept: ten times while outputs come, ten
times while judgements do, each time in a process of its own."""


def test_killed_minus_nine_it_ends_the_same_and_what_was_kept_is_not_asked(folder, judge):
    assert run(folder, judge, out="whole") == 0
    judge.seen.clear()
    data = ["--data_dir", folder / "alpaca_farm", "--replay", folder / "mine.json", "--save_dir"]
    warm = [*data, folder / "warm", "--judge", "length"]
    words = [*data, folder / "out", "--judge_base_url", judge.url, "--judge_model", "j",
             "--concurrency", "1"]  # fmt: skip
    told = json.dumps([list(map(str, warm)), list(map(str, words)), READ])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, told],
        cwd=Path(__file__).parents[3], capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.endswith(f"{[-9] * 20 + [0]}\n"), done.stdout[-500:] + done.stderr[-2000:]
    for name in ("metrics.json", "predictions.jsonl", "annotations.json", "leaderboard.csv"):
        whole = (folder / "whole" / name).read_bytes()
        assert (folder / "out" / name).read_bytes() == whole, name
    asked = Counter(number_of(prompt) for prompt, *_ in judge.seen)
    # One may have been on its way when its process was killed: nobody can know what it said.
    assert set(asked) == set(range(COUNT)) and COUNT <= asked.total() <= COUNT + 10


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
