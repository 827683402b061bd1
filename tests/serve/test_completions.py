"""`/v1/completions`: its forms of prompts, and what it gives beside the engine alone."""

import numpy as np
import pytest

from tulu_jax.generate import Request, Sampling

from .served import CONFIG, MAX_LENGTH, TOKENIZER, chunks

TEXT = "Name a colour of the sky."
IDS = [*TOKENIZER.start_ids, *TOKENIZER.encode_text(TEXT)]
GREEDY = {"temperature": 0, "max_tokens": 12}


def post(client, **fields):
    response = client.post("/v1/completions", json={"prompt": TEXT, **GREEDY, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_text_is_what_the_engine_makes_of_the_tokens(client, alone):
    found = post(client)
    (expected,) = alone.generate([IDS], max_new_tokens=12)
    choice = found["choices"][0]
    assert choice["text"] == expected.text
    assert choice["finish_reason"] == choice["stop_reason"] == "length"
    assert choice["logprobs"] is None and choice["index"] == 0
    assert found["usage"] == {
        "prompt_tokens": len(IDS), "completion_tokens": 12, "total_tokens": len(IDS) + 12,
    }  # fmt: skip
    assert found["object"] == "text_completion" and found["model"] == "small"


def test_texts_ids_and_lists_of_ids_are_prompts(client):
    text = post(client)["choices"][0]["text"]
    assert post(client, prompt=IDS)["choices"][0]["text"] == text
    other = [1, 5, 9]
    found = post(client, prompt=[other, IDS])
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    assert found["choices"][1]["text"] == text
    assert found["choices"][0]["text"] == post(client, prompt=other)["choices"][0]["text"]
    assert found["usage"]["prompt_tokens"] == 3 + len(IDS)
    assert post(client, prompt=[TEXT, "No"])["choices"][0]["text"] == text


def test_samples_have_streams_of_their_own_by_seed(client, alone):
    fields = {"temperature": 0.9, "top_p": 0.8, "n": 3, "seed": 7}
    found = [choice["text"] for choice in post(client, **fields)["choices"]]
    expected = alone.generate([IDS], max_new_tokens=12, n=3, seed=7, sampling=Sampling(0.9, 0.8))
    assert found == [one.text for one in expected] and len(set(found)) == 3
    assert [choice["text"] for choice in post(client, **fields)["choices"]] == found
    fields.pop("seed")
    assert post(client, **fields) != post(client, **fields)
    assert post(client, **fields, seed=7 - 2**32)["choices"][0]["text"] == found[0]


def test_a_stop_string_ends_the_text_before_it(client):
    text = post(client)["choices"][0]["text"]
    stop = text[5:8]
    choice = post(client, stop=["\0 never", stop])["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", f"stop:{stop}")
    assert post(client, stop=stop)["choices"][0]["text"] == choice["text"]


def test_the_models_length_ends_an_answer(client):
    found = post(client, prompt=[1] * (MAX_LENGTH - 3), max_tokens=50, logit_bias={"2": -100})
    choice = found["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "room")
    assert found["usage"]["completion_tokens"] == 3


def test_biases_force_and_forbid_tokens(client):
    token = TOKENIZER.encode_text("a")[0]
    found = post(client, logit_bias={str(token): 100}, logprobs=0)["choices"][0]
    assert set(found["logprobs"]["tokens"]) == {TOKENIZER.token_bytes(token).decode()}


def test_rows_of_a_padded_vocabulary_stand_for_no_text(client):
    last = CONFIG.vocab_size - 1
    found = post(client, logit_bias={str(last): 100}, logprobs=20, echo=True, prompt=[1, 5, last])
    choice = found["choices"][0]
    assert choice["text"] == TOKENIZER.decode([1, 5])
    assert choice["logprobs"]["tokens"][2:] == [f"<token {last}>"] * 13


@pytest.mark.parametrize("max_tokens", [0, 1, 6])
def test_echo_gives_an_entry_for_each_token_of_prompt_and_answer(client, alone, max_tokens):
    found = post(client, echo=True, logprobs=2, max_tokens=max_tokens)["choices"][0]
    logprobs = found["logprobs"]
    request = Request(IDS, max_tokens, prompt_tops=2, tops=2)
    (expected,) = alone.run([request])
    assert found["text"] == TEXT + expected.text
    values = [None, *expected.prompt.logprobs.tolist(), *expected.logprobs.tolist()]
    assert logprobs["token_logprobs"] == values  # the very same floats
    assert {len(part) for part in logprobs.values()} == {len(IDS) + max_tokens}
    assert logprobs["top_logprobs"][0] is None
    best = [max(tops.values()) for tops in logprobs["top_logprobs"][1:]]
    expected_best = np.concatenate([expected.prompt.top_logprobs, expected.top_logprobs])[:, 0]
    assert best == expected_best.tolist()


def test_a_client_sees_by_equal_floats_which_tokens_were_greedy(client):
    made = post(client, logprobs=1, echo=True, max_tokens=30)["choices"][0]["logprobs"]
    again = post(client, logprobs=1, echo=True, max_tokens=1, prompt=[*IDS, 9])["choices"][0]
    for logprobs, start, greedy in ((made, len(IDS), True), (again["logprobs"], len(IDS), False)):
        pairs = zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
        equal = [value == max(tops.values()) for value, tops in list(pairs)[start:]]
        assert equal[0] == greedy and (all(equal) or not greedy)


def test_the_end_token_has_its_entry_too(client):
    """As `local-completions` of lm-evaluation-harness takes off exactly one."""
    eos = TOKENIZER.eos_id
    found = post(client, echo=True, logprobs=1, max_tokens=1, logit_bias={str(eos): 100})
    choice = found["choices"][0]
    assert len(choice["logprobs"]["token_logprobs"]) == len(IDS) + 1
    assert choice["text"] == TEXT and choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"][-1] == TOKENIZER.piece(eos)
    assert found["usage"]["completion_tokens"] == 1


def test_places_of_tokens_are_where_they_begin_in_the_text(client):
    choice = post(client, echo=True, logprobs=0, max_tokens=0)["choices"][0]
    places, tokens = choice["logprobs"]["text_offset"], choice["logprobs"]["tokens"]
    assert choice["text"] == TEXT
    for place, token in list(zip(places, tokens, strict=True))[2:]:
        assert TEXT[place:].startswith(token)
    assert places[:2] == [0, 0]


def test_without_echo_no_tokens_are_no_text(client):
    found = post(client, max_tokens=0)
    assert found["choices"][0]["text"] == "" and found["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("logprobs", [None, 2])
def test_a_stream_says_the_same_as_a_whole_answer(client, echo, n, logprobs):
    fields = {
        "echo": echo, "n": n, "seed": 3, "temperature": 1, "max_tokens": 30, "logprobs": logprobs,
        "stop": ["e"], "prompt": [TEXT, "No, I"],
    }  # fmt: skip
    whole = post(client, **fields)
    fields |= {"stream": True, "stream_options": {"include_usage": True}}
    response = client.post("/v1/completions", json={**GREEDY, **fields})
    assert response.headers["content-type"].startswith("text/event-stream")
    *parts, last = chunks(response)
    assert last["usage"] == whole["usage"] and last["choices"] == []
    assert all(part["usage"] is None for part in parts)
    for choice in whole["choices"]:
        own = [p["choices"][0] for p in parts if p["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert [part["finish_reason"] for part in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        assert own[-1]["stop_reason"] == choice["stop_reason"]
        if logprobs is not None:
            for name, values in choice["logprobs"].items():
                joined = [one for part in own if part["logprobs"] for one in part["logprobs"][name]]
                assert joined == values


def test_an_answer_without_tokens_streams_its_end(client):
    response = client.post(
        "/v1/completions",
        json={"prompt": TEXT, "max_tokens": 0, "echo": True, "logprobs": 1, "stream": True},
    )
    parts = [chunk["choices"][0] for chunk in chunks(response)]
    assert [part["text"] for part in parts] == [TEXT, ""]
    assert len(parts[0]["logprobs"]["tokens"]) == len(IDS)
    assert parts[-1]["finish_reason"] == "length"


def test_defaults_are_those_of_openai(client):
    response = client.post("/v1/completions", json={"prompt": TEXT, "seed": 5})
    explicit = post(client, temperature=1.0, top_p=1.0, n=1, max_tokens=16, seed=5)
    assert response.json()["choices"] == explicit["choices"]
    fields = ("temperature", "top_p", "top_k", "n", "max_tokens", "stop", "logit_bias", "stream",
              "stream_options", "echo", "logprobs", "best_of", "suffix", "model",
              "frequency_penalty", "presence_penalty", "user")  # fmt: skip
    nulls = {"prompt": TEXT, "seed": 5, **dict.fromkeys(fields)}
    found = client.post("/v1/completions", json=nulls)
    assert found.json()["choices"] == explicit["choices"]
