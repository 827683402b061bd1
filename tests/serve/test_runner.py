"""The engine's thread: its queue's bound, cancellation, and an engine that fails."""

import json
import threading
import time

import numpy as np
import pytest

from tulu_jax.generate import Completion, Request
from tulu_jax.serve.guard import Limits
from tulu_jax.serve.runner import QueueFullError, Runner, StoppedError

from .served import in_process, new_engine, new_service

LONG = Request([1, 5], 150, stop_ids=())


@pytest.fixture(scope="module")
def engine():
    return new_engine(2)


@pytest.fixture
def runner(engine):
    runner = Runner(engine, 3)
    runner.start()
    yield runner
    runner.close()
    assert not engine.busy and engine._table.num_free == 2


class Client:
    """What one got."""

    def __init__(self):
        self.events = []
        self._changed = threading.Condition()

    def put(self, event):
        with self._changed:
            self.events.append(event)
            self._changed.notify()

    def wait(self, count=1):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.events) >= count, 120)
        return self.events


def test_the_queue_is_bounded_and_requests_of_a_client_come_together(runner):
    client = Client()
    with pytest.raises(QueueFullError, match="come again in 1 s"):
        runner.submit([LONG] * 6, client.put, stream=False)
    ticket = runner.submit([LONG] * 4, client.put, stream=False)
    with pytest.raises(QueueFullError):
        runner.submit([LONG] * 2, client.put, stream=False)
    other = Client()
    runner.submit([Request([1], 1)], other.put, stream=False)
    assert runner.pending == 5
    other.wait()
    found = client.wait(4)
    assert sorted(index for index, _ in found) == [0, 1, 2, 3] and not ticket.left
    assert runner.pending == 0


def test_cancelled_requests_make_room_and_are_not_told_of(runner):
    client, other = Client(), Client()
    tickets = [runner.submit([LONG], client.put, stream=True) for _ in range(5)]
    client.wait()
    for ticket in tickets:
        ticket.cancel()
    before = len(client.events)
    end = time.monotonic() + 120
    while runner.pending:
        assert time.monotonic() < end
        time.sleep(0.01)
    runner.submit([Request([1, 5], 3)], other.put, stream=False)
    ((_, completion),) = other.wait()
    assert isinstance(completion, Completion) and completion.stop_reason == "length"
    assert len(client.events) <= before + 1  # one may have been on its way


def test_a_failing_engine_is_told_and_goes_on(runner, engine, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    clients = [Client() for _ in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(engine._worker, "decode", fail)
        for client in clients:
            runner.submit([LONG], client.put, stream=False)
        for client in clients:
            ((index, error),) = client.wait()
            assert index == -1 and isinstance(error, StoppedError)
    assert runner.pending == 0 and runner.failures and runner.alive
    assert "RESOURCE_EXHAUSTED" in caplog.text
    client = Client()
    runner.submit([Request([1, 5], 3)], client.put, stream=False)
    ((_, completion),) = client.wait()
    assert len(completion.tokens) == 3


def test_the_end_is_told(engine):
    runner, client = Runner(engine, 9), Client()
    runner.start()
    runner.submit([LONG] * 5, client.put, stream=False)
    runner.close()
    assert isinstance(client.events[-1][1], StoppedError)
    with pytest.raises(StoppedError, match="the server is ending"):
        runner.submit([LONG], client.put, stream=False)
    assert not runner.alive and not engine.busy


def test_clients_are_told_when_to_come_again(engine):
    service = new_service(engine, max_queue=1)
    with in_process(service) as client:
        ticket = service.runner.submit([LONG] * 3, lambda _: None, stream=False)
        response = client.post("/v1/completions", json={"prompt": "a"})
        ticket.cancel()
    assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "queue_full"


@pytest.mark.parametrize("stream", [False, True])
def test_clients_of_a_failing_engine(engine, monkeypatch, stream):
    def fail(*_):
        raise RuntimeError("no memory")

    with in_process(new_service(engine)) as client:
        monkeypatch.setattr(engine._worker, "decode", fail)
        response = client.post("/v1/completions", json={"prompt": "a", "stream": stream})
    assert response.status_code == (200 if stream else 503)
    error = json.loads(response.text.strip().removeprefix("data: "))["error"]
    assert error["message"] == "the engine failed; the server's log says why"
    assert error["type"] == "server_error"
    assert "Traceback" not in response.text and "no memory" not in response.text


@pytest.mark.parametrize("stream", [False, True])
def test_time_is_bounded(engine, stream):
    limits = Limits(request_seconds=0.2)
    body = {"prompt": "a", "max_tokens": 150, "n": 50, "logit_bias": {"2": -100}, "stream": stream}
    with in_process(new_service(engine, limits=limits)) as client:
        response = client.post("/v1/completions", json=body)
        assert "no answer within 0.2 s" in response.text and '"timeout"' in response.text
        assert response.status_code == (200 if stream else 503)
        end = time.monotonic() + 120
        while engine.busy:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_health_says_when_the_engine_does_not_run(engine):
    service = new_service(engine)
    with in_process(service) as client:
        assert client.get("/health").json() == {"status": "ok"}
        service.runner.close()
        assert client.get("/health").status_code == 503
        response = client.post("/v1/completions", json={"prompt": "a"})
        assert response.status_code == 503 and "the server is ending" in response.text


def test_numbers_that_overflow_are_told(engine, monkeypatch):
    with in_process(new_service(engine)) as client:
        decode = engine._worker.decode

        def spoil(*args):
            made = decode(*args)
            return made._replace(
                decoded=made.decoded._replace(logprobs=made.decoded.logprobs * np.nan)
            )

        monkeypatch.setattr(engine._worker, "decode", spoil)
        response = client.post("/v1/completions", json={"prompt": "a", "logprobs": 0})
        assert response.status_code == 503 and "numbers overflow" in response.text
