"""What is refused, each in OpenAI's error object; nothing of it reaches the engine."""

import json
import re

import pytest

from tulu_jax.serve.guard import Limits

from .served import MAX_LENGTH, in_process, new_service

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}


def refused(response, status=400):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"prompt": ""}, "prompt", "prompt is empty; to begin with nothing, send the id of BOS"),
        ({"prompt": []}, "prompt", "prompt list is empty"),
        ({"prompt": [[]]}, "prompt", "prompt is empty"),
        ({"prompt": ["a", ""]}, "prompt", "prompt is empty"),
        ({"prompt": None}, "prompt", "prompt is neither text nor a list - got None"),
        ({"prompt": [1, "a"]}, "prompt", "prompt is neither a text, a list of texts, a list of"),
        ({"prompt": [True]}, "prompt", "prompt is neither"),
        ({"prompt": [1.5]}, "prompt", "prompt is neither"),
        ({"prompt": [-1]}, "prompt", "prompt is neither"),
        ({"prompt": [2**70]}, "prompt", "prompt is neither"),
        ({"prompt": "\ud800"}, "prompt", "text is not valid Unicode"),
        ({"prompt": [1, 90_000]}, "prompt", "ids outside the model's vocabulary - got ids from 1"),
        ({"prompt": [[1], [1, 90_000]]}, "prompt", "got ids from 1 to 90000 at prompt 1"),
        ({"prompt": [1] * MAX_LENGTH}, "prompt", f"no room for an answer .* got {MAX_LENGTH}"),
        ({"prompt": [1] * (MAX_LENGTH + 1), "max_tokens": 0}, "prompt", "no room"),
        ({"stop": [""]}, "stop", "a stop string is empty"),
        ({"stop": ["a"] * 10_000}, "stop", "too many stop strings: 10000, of at most 64"),
        ({"stop": [1]}, "stop", "stop is neither text nor a list of texts"),
        ({"stop": "\udfff"}, "stop", "text is not valid Unicode"),
        ({"n": 0}, "n", "greater than or equal to 1 - got 0 at n"),
        ({"n": 129}, "n", "less than or equal to 128 - got 129 at n"),
        ({"n": "1"}, "n", "valid integer - got '1' at n"),
        ({"n": 128, "prompt": ["a"] * 9}, "n", "too many answers at a time - got 1152 - exp"),
        ({"top_p": 0}, "top_p", "greater than 0 - got 0 at top_p"),
        ({"top_p": 1.1}, "top_p", "less than or equal to 1"),
        ({"top_k": -1}, "top_k", "greater than or equal to 0"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0 - got -1"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"temperature": float("nan")}, "temperature", "finite number - got nan"),
        ({"temperature": float("inf")}, "temperature", "less than or equal to 2|finite number"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 1.0}, "max_tokens", "valid integer - got 1.0"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20 - got 21"),
        ({"logprobs": True}, "logprobs", "valid integer - got True"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"seed": 1.5}, "seed", "valid integer"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "logit_bias has a key that is no token id"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "value that is no number from -100 to 100"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias", "value that is no number"),
        ({"logit_bias": {"90000": 1}}, "logit_bias", "ids outside the model's vocabulary"),
        ({"logit_bias": [1]}, "logit_bias", "no object of token ids and numbers"),
        (
            {"logit_bias": {str(one): 1 for one in range(301)}},
            "logit_bias",
            "too many logit_bias|ids outside",
        ),
        ({"stream_options": {"include_usage": True}}, None, "stream_options go with stream=true"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"best_of": 2}, None, "best_of other than n is not supported here"),
        ({"suffix": "x"}, "suffix", "this is not supported here - got 'x' at suffix"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported here - got 0.5"),
        ({"colour": 1}, "colour", "unknown field, or one that is not supported here at colour"),
        ({"a" * 5000: 1}, None, "unknown field"),
    ],
)  # fmt: skip
def test_fields_of_completions(client, service, fields, param, message):
    body = json.dumps({"prompt": "Hi", **fields})
    response = client.post(COMPLETIONS, content=body, headers={"content-type": "application/json"})
    error = refused(response)
    assert error["type"] == "invalid_request_error"
    assert re.search(message, error["message"]), error["message"]
    assert len(error["message"]) < 500
    if param:
        assert error["param"] == param
    assert not service.runner.pending


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": "Hi"}, "messages", "valid list"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "field is missing at messages.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'developer', 'us"),
        ({"messages": [{**USER, "content": None}]}, "messages.0.content", "neither text nor a li"),
        (
            {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content",
            'part of type \'image_url\' at content - expected {"type": "text", "text": ...} - send',
        ),
        ({"messages": [{**USER, "name": "me"}]}, "messages.0.name", "not supported here - got 'm"),
        (
            {"messages": [USER, {"role": "assistant", "content": "x"}]},
            "messages",
            "conversation ends with a message of assistant",
        ),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "a message of system"),
        ({"messages": [{**USER, "content": "a b " * 500}]}, "messages", "no room for an answer"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, None, "max_completion_tokens differ"),
        ({"top_logprobs": 2}, None, "top_logprobs goes with logprobs=true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"tools": [{"type": "function"}]}, "tools", "this is not supported here"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported here"),
        ({"prompt": "x"}, "prompt", "unknown field"),
    ],
)  # fmt: skip
def test_fields_of_chats(client, fields, param, message):
    error = refused(client.post(CHAT, json={"messages": [USER], **fields}))
    assert message in error["message"] and (not param or error["param"] == param)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "field is missing|body is no JSON object"),
        (b"{", "body is no JSON - Expecting property name"),
        (b"[1]", "body is no JSON object"),
        (b'"x"', "body is no JSON object"),
        (b'{"prompt": "\xff"}', "body is no JSON - 'utf-8' codec can't decode"),
        (b"[" * 100_000, "body is no JSON - nested too deeply"),
        (b'{"prompt": "a", "prompt": "b"}', "body is no JSON - the field prompt twice"),
        (b'{"prompt": "a", "n": ' + b"1" * 5000 + b"}", "body is no JSON - Exceeds the limit"),
        (b'{"prompt": "a"} x', "body is no JSON - Extra data"),
    ],
)
def test_bodies_that_are_none(client, body, message):
    for path in (COMPLETIONS, CHAT, "/tokenize", "/detokenize"):
        response = client.post(path, content=body, headers={"content-type": "application/json"})
        assert re.match(message, refused(response)["message"])


def test_another_content_type_is_no_body(client):
    response = client.post(COMPLETIONS, content=b'{"prompt": "a"}')
    assert "expected one, and content-type: application/json" in refused(response)["message"]


def test_other_paths_methods_and_models(client):
    assert "not found - got GET '/v2'" in refused(client.get("/v2"), 404)["message"]
    assert "method not allowed" in refused(client.get(COMPLETIONS), 405)["message"]
    for response in (
        client.post(COMPLETIONS, json={"prompt": "Hi", "model": "gpt-4"}),
        client.get("/v1/models/gpt-4"),
    ):
        error = refused(response, 404)
        assert error["code"] == "model_not_found"
        assert error["message"] == "no such model - got 'gpt-4' - expected 'small'"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/tokenize", {}, "expected either prompt or messages"),
        ("/tokenize", {"prompt": "a", "messages": [USER]}, "expected either prompt or messages"),
        ("/tokenize", {"prompt": 1}, "not a text - got 1 at prompt"),
        ("/tokenize", {"messages": [USER], "add_generation_prompt": False}, "not supported here"),
        ("/detokenize", {"tokens": [1, 90_000]}, "no such token id - got 90000 - expected 0 to"),
        ("/detokenize", {"tokens": [-1]}, "not a list of token ids"),
        ("/detokenize", {}, "field is missing at tokens"),
    ],
)
def test_what_is_no_text_and_no_tokens(client, path, body, message):
    assert message in refused(client.post(path, json=body))["message"]


def test_a_body_that_is_too_large():
    with in_process(new_service(limits=Limits(body_bytes=2_000_000))) as client:
        error = refused(client.post(COMPLETIONS, content=b"x" * 2_000_001), 413)
        assert error["message"] == "body is too large - expected at most 2,000,000 bytes"


KEYS = ("first-key-123", "second-key-456")


def test_a_key_is_needed_where_there_are_keys():
    with in_process(keys=KEYS) as client:
        for headers in (
            {},
            {"authorization": "Bearer first-key-12"},
            {"authorization": "Basic first-key-123"},
            {"authorization": "first-key-123"},
            {"authorization": "Bearer first-key-123 "[:-1] + "é"},
        ):
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            response = client.get("/v1/models", headers=encoded)
            error = refused(response, 401)
            assert error["code"] == "invalid_api_key" and error["type"] == "authentication_error"
            assert response.headers["www-authenticate"] == "Bearer"
            assert "first" not in response.text
        for key in KEYS:
            headers = {"authorization": f"bearer {key}"}
            assert client.get("/v1/models", headers=headers).status_code == 200
            assert client.get("/metrics", headers=headers).status_code == 200
        refused(client.get("/metrics"), 401)
        assert client.get("/health").json() == {"status": "ok"}
