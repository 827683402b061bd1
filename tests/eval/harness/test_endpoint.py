"""An endpoint that fails in every way that endpoints do: nothing is lost, failures are told."""

import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from eval.harness import endpoint
from eval.harness.asks import Answer, Choose, Generate, Prompt
from eval.harness.endpoint import KEY, EndpointBackend, address
from eval.harness.guards import look_at_answers
from tests.eval.asking import read_jsonl, result, write_jsonl
from tests.eval.harness.endpoint_server import (
    Server,
    body,
    half,
    hang_up,
    refuse,
    repeat_key,
    stall,
    status,
    strange,
)
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError

SECRET = "sk-do-not-tell-41"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setattr(endpoint, "TIMEOUT_S", (5.0, 5.0))
    server = Server()
    yield server
    server.close()


@pytest.fixture(params=["chat", "completions"])
def ask(request, server):
    """Asks these texts, one at a time unless told; answers in order, and the waits."""

    def run(*texts, **options):
        waits = []
        options = {"concurrency": 1, "api": request.param, "sleep": waits.append, **options}
        backend = EndpointBackend("m", base_url=server.url, **options)
        return answers(backend, [Generate(Prompt(text), 9) for text in texts]), waits

    return run


def answers(backend, asks):
    found = {}
    backend.answer(asks, lambda index, answer: found.setdefault(index, answer))
    return [found[index] for index in sorted(found)]


def said(text):
    return Answer(f"about {text}", "eos", 5, 2)


PASSING = {
    "busy": status(429, {"Retry-After": "7"}),
    "broken": status(500),
    "proxy": status(502, body=b"<html>bad gateway</html>"),
    "overloaded": status(529),
    "half a body": half,
    "hung up": hang_up,
    "no JSON": body(b'{"choices": [{"mess'),
    "page": body(b"<!DOCTYPE html>"),
    "too deep": body(b"[" * 200_000),
    "no choices": body({"id": 1}),
    "empty choices": body({"choices": []}),
    "a list": body([1]),
    "choice is no object": body({"choices": ["text"]}),
    "text is a number": strange(message={"content": 1}, text=1),
    "reason is an object": strange(finish_reason={"a": 1}),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_asked_again(ask, server, fault):
    server.faults["one"] = [fault, fault]
    found, waits = ask("one", "two")
    assert found == [said("one"), said("two")]
    assert (server.asked("one"), server.asked("two"), len(waits)) == (3, 1, 2)


def test_a_silent_server_is_asked_again(ask, server, monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT_S", (5.0, 0.4))
    server.faults["one"] = [stall(2)]
    assert ask("one")[0] == [said("one")]
    assert server.asked("one") > 1


def test_what_does_not_pass_is_an_error_of_that_instance_alone(ask, server):
    server.faults = {
        "one": [status(500)] * endpoint.TRIES,
        "two": [refuse],
        "three": [status(400, body={"error": {"message": "too long"}})],
        "four": [half] * endpoint.TRIES,
    }
    found, _ = ask("one", "two", "three", "four", "five")
    assert found[0].error == "endpoint gave no answer in 6 tries: 500 try later"
    assert "endpoint gave no text: " in found[1].error
    assert found[2].error == "endpoint refuses: 400 too long"
    assert "in 6 tries: ChunkedEncodingError" in found[3].error
    assert found[4] == said("five") and all(one.output is None for one in found[:4])
    assert [server.asked(word) for word in ("one", "two", "three")] == [6, 1, 1]


def error(message, **fields):
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    "fault",
    [status(429, body=error("none left", code="insufficient_quota")),
     status(429, body=error("none left", code=None, type="insufficient_quota")),
     status(402, body=error("none left")), body(error("none left", code=402))],
)  # fmt: skip
def test_credit_that_is_used_up_ends_the_run_at_once(ask, server, fault):
    """It was taken for a rate that is too high: six tries for each of 1,319 questions."""
    server.faults["two"] = [fault]
    with pytest.raises(ConfigError, match=r"credit is used up - got .* none left at .* - pay, "):
        ask("one", "two", "three")
    assert (server.asked("one"), server.asked("two"), server.asked("three")) == (1, 1, 0)


def test_an_error_that_comes_with_status_200_is_told_in_its_own_words(ask, server):
    server.faults["one"] = [body(error("provider is down"))] * endpoint.TRIES
    server.faults["two"] = [body(error("slow down", code=429))]
    found, _ = ask("one", "two")
    assert found[0].error == "endpoint gave no answer in 6 tries: 502 provider is down"
    assert found[1] == said("two")


def test_an_answer_in_parts_is_their_text(server):
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "It is "},
             {"type": "text", "text": "4."}]  # fmt: skip
    server.faults["one"] = [strange(message={"content": parts})]
    (found,) = answers(EndpointBackend("m", base_url=server.url), [Generate(Prompt("one"), 9)])
    assert found.output == "It is 4."


def test_an_empty_answer_that_a_filter_made_is_a_refusal(server):
    """It was the model's answer, and wrong."""
    server.faults["one"] = [strange(message={"content": ""}, finish_reason="content_filter")]
    (found,) = answers(EndpointBackend("m", base_url=server.url), [Generate(Prompt("one"), 9)])
    assert found.refused and found.error == "endpoint gave no text: content_filter"


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_prompt_that_a_filter_refuses_is_a_refusal(ask, server, code):
    server.faults["one"] = [status(400, body=error("it was filtered", code=code))]
    (found,), _ = ask("one")
    assert found.refused and found.error == "endpoint refuses: 400 it was filtered"


def test_an_endpoint_that_has_moved_is_not_followed(ask, server):
    """A client that follows asks again without the question."""
    server.faults["one"] = [status(301, {"Location": "https://elsewhere/v1"})]
    with pytest.raises(ConfigError, match=r"another address - got https://elsewhere/v1 at http://"):
        ask("one")


def test_waits_grow_with_jitter_and_obey_the_endpoint(ask, server):
    server.faults["one"] = [status(500)] * 5
    _, waits = ask("one")
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits)) and len(waits) == 5
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    asked = ["77", "1e9", "soon", later, "-3"]
    server.faults["two"] = [status(429, {"Retry-After": text}) for text in asked]
    _, waits = ask("two")
    assert waits[:2] == [77, endpoint.LONGEST_ASKED_S] and 2 <= waits[2] <= 4
    assert 30 < waits[3] <= 90 and 8 <= waits[4] <= 16


def test_counts_that_are_no_numbers_are_left_out(ask, server):
    server.faults["one"] = [strange(usage={"prompt_tokens": "5", "completion_tokens": None})]
    assert ask("one")[0] == [Answer("about one", "eos")]


@pytest.mark.parametrize(
    ("code", "words"), [(401, "401 wrong key"), (403, "403 wrong key"), (404, "404 wrong key")]
)
def test_a_wrong_key_or_model_ends_the_run_at_once(ask, server, code, words):
    server.faults["two"] = [repeat_key(code)]
    with pytest.raises(ConfigError, match=f"endpoint refuses - got {words}.* a model called 'm'"):
        ask("one", "two", "three")
    assert (server.asked("one"), server.asked("three")) == (1, 0)


def test_answers_on_their_way_are_kept_when_it_ends(server):
    server.meet = threading.Barrier(8)
    server.faults["text 3"] = [status(401)]
    backend, found = EndpointBackend("m", base_url=server.url, concurrency=8), {}
    asks = [Generate(Prompt(f"text {n}"), 9) for n in range(8)]
    with pytest.raises(ConfigError, match="endpoint refuses - got 401"):
        backend.answer(asks, lambda index, answer: found.setdefault(index, answer))
    good = [index for index, answer in found.items() if answer.error is None]
    assert sorted(good) == [0, 1, 2, 4, 5, 6, 7]


def test_an_endpoint_that_is_not_there_ends_the_run(server, ask):
    server.close()
    with pytest.raises(ConfigError, match=r"endpoint does not answer .* see --base_url") as caught:
        ask("one", "two")
    assert "of 6 requests" in str(caught.value) and SECRET not in str(caught.value)


def test_an_endpoint_that_goes_away_fails_only_what_is_left(server, ask):
    server.faults["two"] = [hang_up] * endpoint.TRIES
    found, _ = ask("one", "two", "three")
    assert [one.error is None for one in found] == [True, False, True]


def test_what_is_sent(server):
    backend = EndpointBackend("m", base_url=server.url, concurrency=1, seed=10)
    sampled = Generate(Prompt("a"), 5, stops=("\n",), temperature=0.5, top_p=0.9, sample=2)
    assert backend.can == {"generate", "choose"}
    answers(backend, [sampled, Choose(Prompt("b"))])
    (_, path, headers, first), (_, _, _, second) = server.seen
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
    assert first == {
        "model": "m", "messages": [{"role": "user", "content": "a"}], "temperature": 0.5,
        "max_tokens": 5, "stop": ["\n"], "top_p": 0.9, "seed": 12,
    }  # fmt: skip
    assert (second["temperature"], second["max_tokens"]) == (0, endpoint.TOKEN_OF_CHOICE)
    server.seen.clear()
    exact = EndpointBackend("m", base_url=server.url + "/", api="completions", concurrency=1)
    answers(exact, [Generate(Prompt("lone \ud800 \u2665"), 5)])
    assert server.seen[0][1] == "/v1/completions"
    assert server.seen[0][3]["prompt"] == "lone \ud800 \u2665"


def test_stops_that_an_endpoint_does_not_obey_end_answers_all_the_same(server):
    """OpenAI's interface takes four of Codex-Eval's five; some servers take none."""
    server.good = body({"choices": [{"text": "return 1\nprint(2)", "finish_reason": "length"}]})
    stops = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    backend = EndpointBackend("m", base_url=server.url, api="completions")
    found = answers(backend, [Generate(Prompt("one"), 9, stops)])
    assert found == [Answer("return 1", "stop:\nprint")]
    assert server.seen[0][3]["stop"] == list(stops[:4])


def test_a_system_message_stands_before(server):
    ask = Generate(Prompt("a", system="s"), 5)
    answers(EndpointBackend("m", base_url=server.url), [ask])
    answers(EndpointBackend("m", base_url=server.url, api="completions"), [ask])
    chat, plain = (body for *_, body in server.seen)
    assert [one["role"] for one in chat["messages"]] == ["system", "user"]
    assert chat["messages"][0]["content"] == "s" and plain["prompt"] == "s\n\na"


TOP = [{"token": "M", "logprob": -0.1}, {"token": "x", "logprob": -3}]


@pytest.mark.parametrize(
    ("logprobs", "found"),
    [
        ({"content": [{"top_logprobs": TOP}]}, (endpoint.NEVER, -0.1)),
        ({"content": [{"top_logprobs": TOP[1:]}]}, None),
        (None, None),
    ],
)
def test_words_are_weighed_where_the_endpoint_tells(server, logprobs, found):
    server.faults["a"] = [strange(logprobs=logprobs)]
    ask = Choose(Prompt("a"), words=("m", "M"))
    (answer,) = answers(EndpointBackend("m", base_url=server.url), [ask])
    body = server.seen[0][3]
    assert answer.logprobs == found and answer.output == "about a"
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 5)


@pytest.mark.parametrize("logprobs", [{"content": []}, {"content": [{"top_logprobs": [1]}]}, 3])
def test_logprobs_that_are_none_are_asked_for_again(server, logprobs):
    server.faults["a"] = [strange(logprobs=logprobs)]
    backend = EndpointBackend("m", base_url=server.url, sleep=lambda _: None)
    (answer,) = answers(backend, [Choose(Prompt("a"), words=("m", "M"))])
    assert answer.error is None and len(server.seen) == 2


def test_a_refusal_is_told_from_what_was_cut_off(server):
    empty = strange(message={"content": None}, text=None, finish_reason="length")
    server.faults = {"one": [refuse], "two": [empty]}
    asks = [Generate(Prompt(text), 5) for text in ("one", "two")]
    found = answers(EndpointBackend("m", base_url=server.url), asks)
    assert [one.refused for one in found] == [True, False]
    assert found[1].error == "endpoint gave no text: length"


def test_without_a_key_nothing_is_sent_as_one(server, monkeypatch):
    monkeypatch.delenv(KEY)
    answers(EndpointBackend("m", base_url=server.url), [Generate(Prompt("a"), 5)])
    assert "Authorization" not in server.seen[0][2]


def test_another_model_than_was_asked_is_told(ask, server):
    """A name that stands for the newest of a family may be another model tomorrow."""
    whole = {"message": {"content": "x"}, "text": "x", "finish_reason": "stop"}
    names = ["m", "m-2023", None, 7]
    server.faults["one"] = [body({"choices": [whole], "model": name}) for name in names]
    found, _ = ask(*["one"] * 4)
    assert [one.answered_by for one in found] == [None, "m-2023", None, None]
    rows = [{"id": str(n), **one.to_json()} for n, one in enumerate(found)]
    assert look_at_answers(rows)[1] == [
        "the endpoint says that answers are by another model than asked: 'm-2023' (1)"
    ]


def test_requests_are_side_by_side_and_answers_in_their_places(server):
    server.meet = threading.Barrier(12)  # Passed only by twelve at once.
    asks = [Generate(Prompt(f"text {n}"), 5) for n in range(36)]
    found = answers(EndpointBackend("m", base_url=server.url, concurrency=12), asks)
    assert found == [said(f"text {n}") for n in range(36)]
    assert server.busiest == 12 and len(server.seen) == 36


def test_requests_a_minute(ask, monkeypatch):
    monkeypatch.setattr(endpoint.time, "monotonic", lambda: 1000.0)
    _, waits = ask(*"abcd", requests_per_minute=20)
    assert waits == [3.0, 6.0, 9.0]


def test_retries_count_as_requests(ask, server, monkeypatch):
    monkeypatch.setattr(endpoint.time, "monotonic", lambda: 1000.0)
    server.faults["a"] = [status(500)]
    _, waits = ask("a", "b", requests_per_minute=60)
    assert waits[1:] == [1.0, 2.0]


def test_addresses(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert address(None) == endpoint.OPENAI and address("http://h/v1/") == "http://h/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://other/v1")
    assert address(None) == "http://other/v1"
    with pytest.raises(ConfigError, match="endpoint is no address - got ftp://h at --base_url"):
        address("ftp://h")
    with pytest.raises(ConfigError, match="address holds a password") as caught:
        address("https://me:hidden@h/v1")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "new\nline", "caf\u00e9"])
def test_a_key_that_is_none_is_not_shown(monkeypatch, key):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(ConfigError, match=f"key of the endpoint is no key .* at {KEY}") as caught:
        EndpointBackend("m", base_url="http://h")
    assert key not in str(caught.value)


@pytest.fixture
def tulu(server, tmp_path, monkeypatch, capfd):
    """`tulu eval gsm_chat` on ten questions at the server; its status and all it printed."""
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)
    rows = [{"question": f"Number {n:02}?", "answer": f"So. #### {n}"} for n in range(10)]
    (tmp_path / "gsm").mkdir()
    write_jsonl(tmp_path / "gsm" / "test.jsonl", rows)

    def run(*flags):
        where = ["--data_dir", str(tmp_path), "--save_dir", str(tmp_path / "out")]
        code = main(["eval", "gsm_chat", *where, "--engine", "m", "--base_url", server.url, *flags])
        out = capfd.readouterr()
        return code, out.out + out.err

    return run


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_run_lists_its_failures_and_goes_on(tulu, server, tmp_path, api):
    server.faults = {
        "02": [refuse],
        "04": [status(500)] * endpoint.TRIES,
        "05": [status(503), half],
        "07": [repeat_key(400)],
    }
    code, out = tulu("--api", api)
    folder = tmp_path / "out" / "gsm_chat"
    metrics, run, rows = result(folder)
    assert code == 1 and "3 instances failed and are in no metric" in out
    assert run["guards"]["failures"] == ["2", "4", "7"] and (run["n"], metrics["n"]) == (7, 7)
    assert [row["id"] for row in rows if "error" in row] == ["2", "4", "7"]
    assert rows[7]["error"] == "endpoint refuses: 400 wrong key: Bearer ***"
    assert metrics["exact_match"] == 1.0 and run["model"]["path"] == server.url
    server.seen.clear()
    code, _ = tulu("--api", api, "--concurrency", "2")
    metrics, run, rows = result(folder)
    assert code == 0 and sorted(prompt for prompt, *_ in server.seen) == [
        row["prompt"] for row in rows if row["id"] in "247"
    ]
    assert (metrics["n"], metrics["exact_match"], run["guards"]["failures"]) == (10, 1.0, [])
    assert [row["output"][6:15] for row in rows] == [f"Number {n:02}" for n in range(10)]


def test_a_run_that_is_refused_keeps_what_it_had(tulu, server, tmp_path):
    server.faults["06"] = [repeat_key(401)]
    code, out = tulu("--concurrency", "1")
    assert code == 2 and "endpoint refuses - got 401 wrong key: Bearer ***" in out
    assert len(read_jsonl(tmp_path / "out" / "answers.jsonl")) == 6
    assert tulu("--concurrency", "1")[0] == 0
    assert len(server.seen) == 11


def test_the_key_is_nowhere(tulu, server, tmp_path):
    server.faults = {"01": [repeat_key(400)], "02": [repeat_key(500)] * endpoint.TRIES}
    code, out = tulu()
    assert code == 1 and SECRET not in out
    server.faults["01"] = [repeat_key(403)]
    code, out = tulu()
    assert code == 2 and SECRET not in out and "***" in out
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) >= 4 and not [p for p in files if SECRET in p.read_text()]
    assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, _, headers, _ in server.seen)
    assert json.loads((tmp_path / "out/gsm_chat/run.json").read_text())["n"] == 8
