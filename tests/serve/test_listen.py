"""Addresses: which are public, and which cannot be had."""

import doctest
import socket

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
