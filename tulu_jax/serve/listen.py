"""The address a server listens at, and its life: until a signal, and what is begun is done."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from tulu_jax.errors import ConfigError
from tulu_jax.serve.keys import VARIABLE

BACKLOG = 2048
"""Connections that may wait to be taken."""
HEAD_SECONDS = 10.0
"""Within which a request's line and headers are there: who sends them slower is cut off."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_public(host: str, keys: Sequence[str]) -> None:
    """Refuses to serve all the network without a key.

    Raises:
      ConfigError: the address is not this machine's own, and there is no key.
    """
    if not keys and not is_loopback(host):
        raise ConfigError(
            "server would answer everybody without a key",
            got=f"--host {host}",
            expected="127.0.0.1, or a key that clients must send",
            do=f"give --api_key_file FILE, or set {VARIABLE}",
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket with the address, before anything that takes time: it does not listen yet.

    Raises:
      ConfigError: the address is another's, unknown, or not allowed.
    """
    at = f"{host}:{port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(
            "host is unknown", got=str(error), at=at, expected="an address of this machine"
        ) from error
    bound = socket.socket(family, kind, proto)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _taken(error, at) from error
    return bound


def _taken(error: OSError, at: str) -> ConfigError:
    used = error.errno == errno.EADDRINUSE
    return ConfigError(
        "port is in use" if used else "address cannot be taken",
        got=error.strerror or str(error),
        at=at,
        do="end the other server, or choose another --port" if used else None,
    )


def url(host: str, bound: socket.socket) -> str:
    """Where clients of this machine find the server."""
    address, port = bound.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Protocol(H11Protocol):
    """HTTP of one connection, which is cut off where a request's headers do not come in time.

    uvicorn bounds their size alone: one that sends a byte a minute, or nothing, would hold its
    connection for ever, and with enough of them nobody else gets one.
    """

    head_seconds = HEAD_SECONDS
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._watch()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # the headers are there
            self._unwatch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._head is None and self.conn.their_state is h11.IDLE:
            self._head = self.loop.call_later(self.head_seconds, self._cut_off)

    def _unwatch(self) -> None:
        if self._head is not None:
            self._head.cancel()
        self._head = None

    def _cut_off(self) -> None:
        self._head = None
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and ends in peace at a signal."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        drain_seconds: float,
        on_ready: Callable[[], None],
        head_seconds: float = HEAD_SECONDS,
        **options: Any,
    ) -> None:
        """A server that is not started.

        Args:
          app: what it serves.
          drain_seconds: after a signal, until answers that are not done are cut off.
          on_ready: called once clients are let in.
          head_seconds: within which a request's headers must come.
          options: more of `uvicorn.Config`, such as certificates.
        """
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=type("Protocol", (_Protocol,), {"head_seconds": head_seconds}),
                ws="none",
                **{"lifespan": "on", **options},
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
                backlog=BACKLOG,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets clients in.

        Raises:
          ConfigError: another server, bound at the same time, was quicker to listen.
        """
        try:
            await super().startup(sockets)
        except OSError as error:
            raise _taken(error, "the address") from error
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        """Takes signals for the time of serving; uvicorn raises them once more at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        taken = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, self.handle_exit) for one in taken}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
