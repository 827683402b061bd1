"""Addresses: which are public, and which cannot be had."""

import asyncio
import doctest
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.serve import listen


def test_docstring_examples():
    assert doctest.testmod(listen).failed == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", "127.0.0.1.nip.io"])
def test_all_the_network_is_not_served_without_a_key(host):
    with pytest.raises(ConfigError, match=f"everybody without a key - got --host {host}"):
        listen.check_public(host, [])
    listen.check_public(host, ["a-key-of-ours"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.4.5", "::1", "localhost"])
def test_this_machine_is(host):
    listen.check_public(host, [])


def test_a_port_that_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = f"port is in use - got Address already in use at 127.0.0.1:{port} - end the other"
        with pytest.raises(ConfigError, match=message):
            listen.bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("no.such.host.invalid", "host is unknown"),
        ("a" * 300, "host is unknown"),
        ("192.0.2.1", "address cannot be taken - got Cannot assign requested address"),
    ],
)
def test_hosts_that_are_none_of_this_machine(host, message):
    with pytest.raises(ConfigError, match=message):
        listen.bind(host, 0)


def test_the_address_for_clients_of_this_machine():
    for host in ("127.0.0.1", "0.0.0.0"):
        with listen.bind(host, 0) as bound:
            assert listen.url(host, bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def served(app, **options):
    """The port of a server in a thread."""
    ready = threading.Event()
    with listen.bind("127.0.0.1", 0) as bound:
        server = listen.Server(
            app, drain_seconds=1, on_ready=ready.set, lifespan="off", **options
        )  # fmt: skip
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        assert ready.wait(120)
        yield bound.getsockname()[1]
        server.should_exit = True
        thread.join(120)


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def test_headers_that_come_too_slowly_end_a_connection_and_slow_answers_do_not():
    async def app(scope, receive, send):
        await asyncio.sleep(0.6)  # longer than headers may take
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def until_closed(line, drip):
        line.settimeout(0.02)
        for _ in range(3000):
            try:
                if not line.recv(4096):
                    return True
            except TimeoutError:
                with suppress(OSError):
                    line.sendall(drip)
            except ConnectionError:
                return True
        return False

    with served(app, head_seconds=0.3) as port:

        def connect():
            return socket.create_connection(("127.0.0.1", port), timeout=60)

        with connect() as silent, connect() as slow, connect() as kept:
            kept.sendall(GET)
            assert b" 204 " in kept.recv(4096)
            kept.sendall(GET)  # a second one is as free to take its time
            assert b" 204 " in kept.recv(4096)
            assert until_closed(slow, b"G")
            assert silent.recv(1) == b""
            kept.sendall(GET[:-4])
            assert until_closed(kept, b"x")
