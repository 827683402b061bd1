"""Real clients on a port: OpenAI's own, many at a time, slow ones, and ones that go away."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from thorough import sample

from tulu_jax.generate import Request, Sampling
from tulu_jax.serve.guard import Limits

from .served import TOKENIZER, new_engine, new_service, on_a_port

TEXT = "Name a colour of the sky."
MESSAGES = [{"role": "user", "content": TEXT}]
LONG = {"temperature": 1.0, "max_tokens": 150, "logit_bias": {str(TOKENIZER.eos_id): -100}}


@pytest.fixture(scope="module")
def service():
    return new_service(limits=Limits(body_bytes=1_000_000, body_seconds=1.0))


@pytest.fixture(scope="module")
def address(service):
    with on_a_port(service) as (address, _):
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client):
    assert [model.id for model in client.models.list()] == ["small"]
    assert client.models.retrieve("small").owned_by == "tulu-jax"


def test_chat_streaming_and_not(client):
    fields = {"model": "small", "messages": MESSAGES, "seed": 1, "max_tokens": 40, "n": 2}
    whole = client.chat.completions.create(**fields, logprobs=True, top_logprobs=2)
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    texts = {0: "", 1: ""}
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(**fields, stream=True, stream_options=options):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert [choice.message.content for choice in whole.choices] == list(texts.values())
    assert chunk.usage == whole.usage


def test_completions_streaming_and_not(client):
    fields = {"model": "small", "prompt": [TEXT, "The sea"], "seed": 1, "max_tokens": 40}
    whole = client.completions.create(**fields, echo=True, logprobs=2)
    assert whole.choices[1].logprobs.token_logprobs[0] is None
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(**fields, echo=True, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert [choice.text for choice in whole.choices] == list(texts.values())


def test_what_is_refused_is_an_exception_of_the_clients(client):
    with pytest.raises(openai.BadRequestError, match="greater than or equal to 0 - got -1") as met:
        client.completions.create(model="small", prompt="a", temperature=-1)
    assert met.value.param == "temperature"
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.completions.create(model="large", prompt="a")


def settings(number):
    """Of the request of this number, all of one kind in a few ways."""
    sampling = {"temperature": 0} if number % 3 else {"temperature": 0.8, "top_p": 0.9}
    return {**sampling, "seed": number, "max_tokens": 1 + number % 4, "logprobs": number % 2}


KINDS = 160
"""Different requests; neighbours are always of different kinds."""
REQUESTS = sample(20)


def test_64_clients_with_many_requests_each():
    """None is lost or mixed up: each gets what an engine gives to it alone."""
    prompts = [[1, 5 + kind, 7, 9 + kind // 3] for kind in range(KINDS)]
    service = new_service(new_engine(16))

    async def one_client(address, own):
        found = {}
        async with httpx2.AsyncClient(base_url=address, timeout=200) as client:
            for number in own:
                kind = number % KINDS
                body = {"prompt": prompts[kind], **settings(kind)}
                if number % 4 == 0:
                    body |= {"stream": True}
                response = await client.post("/v1/completions", json=body)
                assert response.status_code == 200, response.text
                found[number] = read(response)
        return found

    def read(response):
        if response.headers["content-type"] == "application/json":
            parts = [response.json()]
        else:
            lines = response.text.split("\n\n")
            parts = [json.loads(line[6:]) for line in lines if line and line != "data: [DONE]"]
        choices = [part["choices"][0] for part in parts]
        own = [choice["logprobs"]["token_logprobs"] for choice in choices if choice["logprobs"]]
        values = [value for part in own for value in part]
        return "".join(choice["text"] for choice in choices), values

    async def all_clients(address):
        tasks = (one_client(address, range(start, 64 * REQUESTS, 64)) for start in range(64))
        return await asyncio.gather(*tasks)

    with on_a_port(service) as (address, _):
        parts = asyncio.run(all_clients(address))
        assert service.runner.pending == 0
    found = {number: one for own in parts for number, one in own.items()}
    assert len(found) == 64 * REQUESTS
    requests = []
    for kind, prompt in enumerate(prompts):
        own = settings(kind)
        sampling = Sampling(own["temperature"], own.get("top_p", 1.0))
        requests.append(
            Request(prompt, own["max_tokens"], sampling, seed=kind, tops=1, keep_stop=True)
        )
    expected = new_engine(16).run(requests)
    for number, (text, logprobs) in found.items():
        assert text == expected[number % KINDS].text
        assert logprobs == expected[number % KINDS].logprobs.tolist()


def raw(address, body, path="/v1/completions"):
    """A connection on which a request was sent."""
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=120)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def until(passes):
    end = time.monotonic() + 120
    while not passes():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_slots(address, service, stream, monkeypatch):
    made = service.runner.engine.stats
    body = {"prompt": TEXT, **LONG, "n": 40, "stream": stream}
    connection = raw(address, body)
    until(lambda: service.runner.busy_slots == 4)
    if stream:
        assert b"200 OK" in connection.recv(100)
    before = made.decoded_tokens
    connection.close()
    until(lambda: service.runner.pending == 0)
    assert made.decoded_tokens - before < 20 * 150  # of 40 x 150 that were asked for


def test_slow_readers_hold_nobody_up(address, client, service):
    """One reads nothing for long, and gets all of it in the end."""
    body = {"prompt": TEXT, **LONG, "n": 20, "logprobs": 20, "echo": True, "stream": True}
    slow = [raw(address, body)]
    until(lambda: service.runner.pending > 0)
    start = client.completions.create(model="small", prompt="a", max_tokens=2)
    assert start.usage.completion_tokens
    until(lambda: service.runner.pending == 0)
    for connection in slow:
        received = b""
        while b"data: [DONE]" not in received:
            part = connection.recv(1 << 20)
            assert part
            received += part
        assert received.count(b'"finish_reason": "length"') == 20
        connection.close()


def test_a_body_of_100_mb_is_refused_while_it_streams_in(address):
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=120)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.sendall(head)
    block = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    answer, sent = [], 0

    def listen():
        answer.append(connection.recv(4096))

    reader = threading.Thread(target=listen)
    reader.start()
    for _ in range(100):
        try:
            connection.sendall(block)
        except OSError:
            break
        sent += 1
    reader.join()
    connection.close()
    assert b" 413 " in answer[0] and sent < 90


def test_a_body_that_does_not_come_is_not_waited_for(address):
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        answer = connection.recv(4096)
    assert b" 408 " in answer


def test_what_is_no_http_is_answered(address):
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert b" 400 " in connection.recv(4096)


def test_answers_that_are_begun_are_given_when_the_server_ends(monkeypatch):
    service = new_service()
    submit, submitted = service.runner.submit, []

    def noted(*args, **options):
        submitted.append(submit(*args, **options))
        return submitted[-1]

    monkeypatch.setattr(service.runner, "submit", noted)
    with on_a_port(service) as (address, server), ThreadPoolExecutor(6) as pool:
        body = {"prompt": [1, 5], **LONG, "seed": 4}
        streams = [raw(address, {**body, "stream": True}) for _ in range(6)]
        wholes = [
            pool.submit(httpx2.post, f"{address}/v1/completions", json=body, timeout=120)
            for _ in range(6)
        ]
        until(lambda: len(submitted) == 12)
        server.handle_exit(15, None)
        found = {whole.result().json()["choices"][0]["text"] for whole in wholes}
        assert len(found) == 1
        for stream in streams:
            received = b""
            while part := stream.recv(1 << 20):
                received += part
            assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            stream.close()
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{address}/health")
