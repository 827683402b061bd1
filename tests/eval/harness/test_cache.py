"""Answers that are kept."""

import io
import json
import math
from pathlib import Path

import pytest

from eval.harness.asks import Answer, Choose, Generate, Prompt, Weigh
from eval.harness.cache import AnswerCache, ask_kept
from tulu_jax.errors import ConfigError, DataError

INF, NAN = math.inf, math.nan
ANSWER = Answer("Yes. ♥", "eos", 7, 3, capped=True)


def test_what_was_kept_is_there_again(tmp_path):
    path = tmp_path / "deep" / "answers.jsonl"
    with AnswerCache(path) as cache:
        cache.put("a", ANSWER)
        cache.put("b", Answer(logprobs=(-1.5, -0.1)))
    with AnswerCache(path) as cache:
        assert len(cache) == 2 and cache.get("a") == ANSWER and cache.get("c") is None
        assert cache.get("b").logprobs == (-1.5, -0.1)


def test_without_a_file_answers_are_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with AnswerCache(None) as cache:
        cache.put("a", ANSWER)
        cache.put("b", Answer(error="busy"))
        assert cache.get("a") == ANSWER and len(cache) == 1
    assert not list(tmp_path.iterdir())


def test_an_error_is_not_kept(tmp_path):
    with AnswerCache(tmp_path / "a") as cache:
        cache.put("a", Answer(error="busy"))
        assert cache.get("a") is None
    assert (tmp_path / "a").read_bytes() == b""


def test_a_refusal_is_kept_where_that_is_wanted(tmp_path):
    refusal = Answer(error="I must not", refused=True)
    with AnswerCache(tmp_path / "a") as cache:
        cache.put("a", refusal)
        cache.put("b", refusal, keep_refusals=True)
        cache.put("c", Answer(error="busy"), keep_refusals=True)
    with AnswerCache(tmp_path / "a") as cache:
        assert (cache.get("a"), cache.get("b"), cache.get("c")) == (None, refusal, None)


def test_other_caches_are_read_and_left_alone(tmp_path):
    with AnswerCache(tmp_path / "a") as cache:
        cache.put("a", ANSWER)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() + b'{"half')
    before = (tmp_path / "a").read_bytes()
    with AnswerCache(tmp_path / "b", [tmp_path / "a", tmp_path / "none"]) as cache:
        assert cache.get("a") == ANSWER
        cache.put("b", ANSWER)
    assert (tmp_path / "a").read_bytes() == before
    with AnswerCache(tmp_path / "b") as cache:
        assert cache.get("a") is None and cache.get("b") == ANSWER


class Backend:
    """Answers with the prompt, but refuses an R and fails at an X."""

    fingerprint, can = "b", frozenset({"generate"})

    def __init__(self):
        self.asked = []

    def answer(self, asks, on_done):
        for index, ask in reversed(list(enumerate(asks))):
            self.asked.append(text := ask.prompt.text)
            fault = {"R": Answer(error="no", refused=True), "X": Answer(error="gone")}
            on_done(index, fault.get(text, Answer(text)))


def test_what_is_kept_is_not_asked_and_equal_asks_only_once(tmp_path):
    backend, heard = Backend(), []
    with AnswerCache(tmp_path / "a") as cache:
        asks = [Generate(Prompt(text), 5) for text in "aRbaX"]
        for _ in range(2):
            found = ask_kept(asks, backend, cache, heard.append, keep_refusals=True)
            assert [one.output for one in found] == ["a", None, "b", "a", None]
            assert [one.refused for one in found] == [False, True, False, False, False]
            assert len(heard) == 5
            heard.clear()
        ask_kept(asks[1:2], Backend(), cache)
    assert sorted(backend.asked) == ["R", "X", "X", "a", "b"]


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path):
    path = tmp_path / "a"
    with AnswerCache(path) as cache:
        cache.put("a", ANSWER)
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole + whole[:size])
        with AnswerCache(path) as cache:
            assert cache.get("a") == ANSWER
            cache.put("b", ANSWER)
        with AnswerCache(path) as cache:
            assert cache.get("b") == ANSWER


@pytest.mark.parametrize("line", [b"{}", b"x", b'{"key": "a", "answer": {"other": 1}}', b"\xff"])
def test_a_damaged_line_is_told_with_its_number(tmp_path, line):
    path = tmp_path / "a"
    with AnswerCache(path) as cache:
        cache.put("a", ANSWER)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=r"kept answer is damaged .* line 2 - remove"):
        AnswerCache(path).__enter__()


def test_one_process_writes_at_a_time(tmp_path):
    with (
        AnswerCache(tmp_path / "a"),
        pytest.raises(ConfigError, match="another process is writing these results"),
    ):
        AnswerCache(tmp_path / "a").__enter__()


def test_a_place_that_cannot_be_written_is_told():
    with pytest.raises(ConfigError, match=r"results cannot be written .* --save_dir"):
        AnswerCache(Path("/proc/nowhere/a")).__enter__()


def test_a_full_disk_is_told(tmp_path):
    with AnswerCache(tmp_path / "a") as cache:
        cache._file.close()
        cache._file = io.FileIO("/dev/full", "wb")
        with pytest.raises(DataError, match="answer cannot be kept - got No space left"):
            cache.put("a", ANSWER)


def test_keys_tell_all_apart_that_decides_an_answer():
    prompt, other = Prompt("Q", (1, 2)), Prompt("Q", (1, 3))
    asks = [
        Generate(prompt, 5),
        Generate(other, 5),
        Generate(prompt, 6),
        Generate(prompt, 5, stops=("\n",)),
        Generate(prompt, 5, stop_tokens=((13,),)),
        Generate(prompt, 5, temperature=0.5),
        Generate(prompt, 5, temperature=0.5, sample=1),
        Generate(prompt, 5, temperature=0.5, top_p=0.9),
        Choose(prompt, (5, 6)),
        Choose(prompt, (5, 7)),
        Choose(Prompt("Q"), words=("m", "M")),
        Choose(Prompt("Q"), words=("m", "N")),
        Choose(Prompt("Q")),
        Choose(Prompt("Q", system="S")),
        Weigh(prompt, (((1,), (2,)),)),
        Weigh(prompt, (((1, 2), (2,)),)),
    ]
    keys = {ask.key(model) for ask in asks for model in ("a", "b")}
    assert len(keys) == 2 * len(asks)
    # Greedy text is the same whatever the sample; the prompt's tokens count, not how it is shown.
    assert Generate(prompt, 5, sample=1).key("a") == Generate(prompt, 5).key("a")
    assert Generate(Prompt("shown", (1, 2)), 5).key("a") == Generate(prompt, 5).key("a")


class Weighing:
    """Gives everything these log-probabilities."""

    fingerprint, can = "w", frozenset({"choose"})

    def __init__(self, *logprobs):
        self.logprobs = logprobs

    def answer(self, asks, on_done):
        for index in range(len(asks)):
            on_done(index, Answer(logprobs=self.logprobs))


@pytest.mark.parametrize("logprobs", [(NAN, NAN), (-1.0, NAN), (-INF, -INF), (INF, -1.0)])
def test_log_probabilities_that_cannot_be_compared_are_a_failure(tmp_path, logprobs):
    """The largest of NaN is the first: a broken model answered A, and scored 23 % on MMLU."""
    (tmp_path / "a").write_text(json.dumps({"key": "x", "answer": {"logprobs": logprobs}}) + "\n")
    with AnswerCache(tmp_path / "a") as cache:
        assert cache.get("x") is None
        (found,) = ask_kept([Choose(Prompt("one"), (1, 2))], Weighing(*logprobs), cache)
        assert len(cache) == 0
    assert found.error.startswith("log-probabilities cannot be compared: ")


def test_a_choice_that_is_impossible_can_be_compared(tmp_path):
    with AnswerCache(None) as cache:
        (found,) = ask_kept([Choose(Prompt("one"), (1, 2))], Weighing(-INF, -1.0), cache)
    assert found == Answer(logprobs=(-INF, -1.0))
