"""`/v1/chat/completions`: conversations in the model's chat template."""

import pytest

from tulu_jax.chat import encode_prompt

from .served import MAX_LENGTH, TOKENIZER, chunks

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a colour."},
    {"role": "assistant", "content": "Red."},
    {"role": "user", "content": "And one more?"},
]
PROMPT = encode_prompt(MESSAGES, TOKENIZER).tolist()
PARTS = ("Name ", "a colour.")
GREEDY = {"temperature": 0, "max_tokens": 12}


def post(client, **fields):
    body = {"messages": MESSAGES, **GREEDY, **fields}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_an_answer_is_what_the_engine_gives_for_the_rendered_conversation(client, alone):
    found = post(client)
    (expected,) = alone.generate([PROMPT], max_new_tokens=12)
    message = {"role": "assistant", "content": expected.text, "refusal": None}
    assert found["choices"][0]["message"] == message
    assert found["usage"]["prompt_tokens"] == len(PROMPT)
    assert found["object"] == "chat.completion"


def test_without_a_number_of_tokens_all_that_fit_are_made(client):
    found = post(client, max_tokens=None, logit_bias={str(TOKENIZER.eos_id): -100})
    assert found["usage"]["total_tokens"] == MAX_LENGTH
    assert found["choices"][0]["stop_reason"] == "room"


def test_both_names_of_the_number_of_tokens(client):
    one, two = post(client), post(client, max_tokens=None, max_completion_tokens=12)
    assert one["choices"] == two["choices"]


def test_content_in_parts_and_the_role_developer(client):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": text} for text in PARTS]},
        {"role": "assistant", "content": "Red.", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "And one more?"},
    ]  # fmt: skip
    assert post(client, messages=messages)["choices"] == post(client)["choices"]


def test_logprobs_name_tokens_by_text_and_bytes(client, alone):
    found = post(client, logprobs=True, top_logprobs=3)["choices"][0]
    (expected,) = alone.generate([PROMPT], max_new_tokens=12, logprobs=True)
    content = found["logprobs"]["content"]
    assert [entry["logprob"] for entry in content] == expected.logprobs.tolist()
    assert b"".join(bytes(entry["bytes"]) for entry in content) == b"".join(
        map(TOKENIZER.token_bytes, expected.tokens)
    )
    for entry, tops in zip(content, expected.top_logprobs, strict=True):
        assert [top["logprob"] for top in entry["top_logprobs"]] == tops[:3].tolist()
    without = post(client, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in without] == [[]] * 12


def test_the_end_token_is_no_part_of_an_answer(client):
    bias = {str(TOKENIZER.eos_id): 100}
    found = post(client, logit_bias=bias, logprobs=True)
    choice = found["choices"][0]
    assert choice["message"]["content"] == "" and choice["finish_reason"] == "stop"
    assert choice["logprobs"]["content"] == []
    assert found["usage"]["completion_tokens"] == 1  # which was made all the same


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("logprobs", [False, True])
def test_a_stream_says_the_same_as_a_whole_answer(client, n, logprobs):
    fields = {"n": n, "seed": 3, "temperature": 1, "max_tokens": 30, "logprobs": logprobs}
    whole = post(client, **fields)
    fields |= {"stream": True, "stream_options": {"include_usage": True}, "messages": MESSAGES}
    *parts, last = chunks(client.post("/v1/chat/completions", json=fields))
    assert last["usage"] == whole["usage"]
    assert {part["object"] for part in parts} == {"chat.completion.chunk"}
    for choice in whole["choices"]:
        own = [p["choices"][0] for p in parts if p["choices"][0]["index"] == choice["index"]]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        texts = [part["delta"].get("content", "") for part in own]
        assert "".join(texts) == choice["message"]["content"]
        assert own[-1]["delta"] == {} and own[-1]["finish_reason"] == choice["finish_reason"]
        if logprobs:
            joined = [
                one for part in own if part["logprobs"] for one in part["logprobs"]["content"]
            ]
            assert joined == choice["logprobs"]["content"]


def test_fields_without_effect_are_taken_at_their_defaults(client):
    fields = {
        "frequency_penalty": 0, "presence_penalty": 0.0, "response_format": {"type": "text"},
        "tools": [], "tool_choice": "none", "user": "me", "metadata": {"a": "b"}, "store": False,
        "service_tier": "auto", "modalities": ["text"], "parallel_tool_calls": True,
    }  # fmt: skip
    assert post(client, **fields)["choices"] == post(client)["choices"]
