"""A small random model behind the server: in this process, or on a port of this machine."""

import threading
from contextlib import contextmanager
from functools import cache

import jax
import numpy as np
from starlette.testclient import TestClient

from tasks import demo
from tulu_jax.chat import load_tokenizer
from tulu_jax.generate import Engine
from tulu_jax.models import LlamaConfig, abstract_params
from tulu_jax.serve import listen
from tulu_jax.serve.app import make_app
from tulu_jax.serve.guard import Limits
from tulu_jax.serve.runner import Runner
from tulu_jax.serve.service import Service

NAME = "small"
SLOTS = 4
MAX_LENGTH = 200
TOKENIZER = load_tokenizer(demo.TOKENIZER_DIR)
CONFIG = LlamaConfig(
    vocab_size=TOKENIZER.vocab_size + 3,  # as if padded: the last rows stand for no text
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    max_length=MAX_LENGTH,
    norm_eps=1e-5,
    bos_id=TOKENIZER.bos_id,
    eos_id=TOKENIZER.eos_id,
    pad_id=TOKENIZER.pad_id,
)


@cache
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.5).astype(np.float32), abstract_params(CONFIG)
    )


def new_engine(slots=SLOTS):
    return Engine(CONFIG, params(), slots=slots, tokenizer=TOKENIZER)


def new_service(engine=None, *, max_queue=64, limits=None):
    runner = Runner(engine or new_engine(), max_queue)
    return Service(runner, TOKENIZER, NAME, limits or Limits())


@contextmanager
def in_process(service=None, keys=()):
    """A client that calls the application, without a network between."""
    service = service or new_service()
    with TestClient(make_app(service, keys), raise_server_exceptions=False) as client:
        yield client


@contextmanager
def on_a_port(service=None, keys=(), drain_seconds=10.0):
    """The address of a server that other threads' clients reach; the server itself."""
    service = service or new_service()
    bound = listen.bind("127.0.0.1", 0)
    ready = threading.Event()
    app = make_app(service, keys)
    server = listen.Server(app, drain_seconds=drain_seconds, on_ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        assert ready.wait(120)
        yield listen.url("127.0.0.1", bound), server
    finally:
        server.should_exit = True
        thread.join(120)
        bound.close()
        assert not thread.is_alive()


def chunks(response):
    """What a stream's events hold, up to its end."""
    import json

    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
