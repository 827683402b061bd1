"""Whatever is sent: an answer, or OpenAI's error object; never 500, never a traceback."""

import asyncio
import copy
import dataclasses
import json
import random

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from thorough import sample

from tulu_jax.generate import Engine
from tulu_jax.serve.app import make_app

from .served import CONFIG, TOKENIZER, new_service, on_a_port, params

SHORT = dataclasses.replace(CONFIG, max_length=48)
"""So that no answer is long, whatever is asked for."""


def short_service():
    engine = Engine(SHORT, params(), slots=16, tokenizer=TOKENIZER)
    return new_service(engine, max_queue=4096)


def is_fine(status, text):
    assert status < 500 or status == 503, text
    assert "Traceback" not in text and ".py" not in text
    if status >= 400:
        assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


CHECKS = [
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
WITH_BODY = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"]
WITHOUT = ["/v1/models", "/v1/models/{name}", "/tokenizer_info", "/health", "/metrics"]
RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def schema():
    with on_a_port(short_service()) as (address, _):
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_all_routes_are_described(schema):
    found = {(one.ok().method.upper(), one.ok().path) for one in schema.get_all_operations()}
    posts, gets = {("POST", path) for path in WITH_BODY}, {("GET", path) for path in WITHOUT}
    assert found == posts | gets


@pytest.mark.parametrize(
    ("path", "mode"),
    [(path, mode) for path in WITH_BODY for mode in (RIGHT, WRONG)]
    + [(path, RIGHT) for path in WITHOUT],
)
def test_what_the_description_allows_and_what_it_does_not(schema, path, mode):
    operation = schema[path]["POST" if path in WITH_BODY else "GET"]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        deadline=None,
        max_examples=30 if path in WITH_BODY else 3,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    def try_one(case):
        response = case.call(timeout=120)  # the first ones wait for compilation
        is_fine(response.status_code, response.content.decode())
        case.validate_response(response, checks=CHECKS)

    try_one()


SEEDS = [
    ("/v1/completions", {"prompt": "Hi there", "max_tokens": 2, "temperature": 0.5, "top_p": 0.9,
                         "n": 1, "stop": ["a", "\n"], "logprobs": 1, "echo": True, "seed": 1,
                         "logit_bias": {"5": 1}, "stream": False}),
    ("/v1/completions", {"prompt": [[1, 5], [1, 7, 9]], "max_tokens": 1, "stream": True,
                         "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1,
                              "logprobs": True, "top_logprobs": 2, "tools": [], "n": 1}),
    ("/tokenize", {"prompt": "Hi there", "add_special_tokens": False}),
    ("/tokenize", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
    ("/detokenize", {"tokens": [1, 5, 9]}),
]  # fmt: skip
JUNK = [
    None, True, False, 0, -1, 1, 2, 0.5, 1e308, -1e-320, 2**31, 2**63, 10**40, "", "x", "\0",
    "é" * 50, "\ud83d", "</s>", [], [[]], [None], [1, "a"], {}, {"": None}, {"5": 1}, float("nan"),
    float("-inf"), "a" * 3000, list(range(40)), [[[[1]]]],
]  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else items:
        yield from places(one, (*path, key))


def mutated(rng):
    """A route and the bytes of a body that something was done to."""
    path, body = rng.choice(SEEDS)
    body = copy.deepcopy(body)
    for _ in range(rng.choice([1, 1, 2, 4])):
        *before, last = rng.choice([place for place in places(body) if place] or [("x",)])
        parent = body
        for key in before:
            parent = parent[key]
        kind = rng.random()
        if kind < 0.6 and (isinstance(parent, list) or last in parent):
            parent[last] = copy.deepcopy(rng.choice(JUNK))
        elif kind < 0.8 and (isinstance(parent, list) or last in parent):
            del parent[last]
        elif isinstance(parent, dict):
            names = ["best_of", "suffix", "user", "model", "n", "stop", "max_tokens", "colour"]
            parent[rng.choice(names)] = copy.deepcopy(rng.choice(JUNK))
    data = bytearray(json.dumps(body).encode())
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            data[at : at + rng.choice([0, 1, 1, 9])] = rng.randbytes(rng.choice([0, 1, 2]))
            data = data or bytearray(b"{")
    return path, bytes(data)


async def call(app, path, body):
    """Status and text of an answer, without a network between."""
    sent, messages = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive():
        if sent:
            return sent.pop()
        await asyncio.Event().wait()

    async def send(message):
        messages.append(message)

    headers = [(b"content-type", b"application/json"), (b"host", b"x")]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "scheme": "http", "server": ("x", 80), "client": ("y", 1),
        "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in messages[1:]).decode()
    return messages[0]["status"], text


def test_mutated_bodies(caplog):
    rng = random.Random(0)
    bodies = [mutated(rng) for _ in range(sample(10_000))]
    bodies.append(("/v1/completions", b'{"model": "another", "prompt": "Hi"}'))
    service = short_service()
    app = make_app(service)

    async def send_all():
        for start in range(0, len(bodies), 200):
            part = bodies[start : start + 200]
            yield await asyncio.gather(*(call(app, *one) for one in part))

    async def run():
        return [one async for part in send_all() for one in part]

    service.start()
    try:
        found = asyncio.run(run())
    finally:
        service.close()
    for status, text in found:
        is_fine(status, text)
    statuses = {status for status, _ in found}
    assert statuses == {200, 400, 404}
    answered = sum(status == 200 for status, _ in found)
    assert 0.1 < answered / len(found) < 0.9  # some bodies are still right
    assert service.runner.failures == 0 and service.runner.pending == 0
    assert not caplog.records
