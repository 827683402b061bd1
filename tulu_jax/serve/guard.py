"""What stands before every route: the key, and bounds on a body's size and time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tulu_jax.serve.faults import ApiError

OPEN_PATHS = ("/health",)
"""Those that need no key."""


class Limits(NamedTuple):
    """Bounds on what one client takes."""

    request_seconds: float = 600.0
    """Until an answer must be there, or a stream at its end."""
    body_bytes: int = 16 * 2**20
    body_seconds: float = 60.0
    """Until a body must be there."""


class _GoneError(Exception):
    """The client closed the connection."""


class Guard:
    """Lets requests through to the application, each with its whole body, or answers itself."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        limits: Limits,
        count: Callable[[str, int], None],
    ) -> None:
        """Guards an application.

        Args:
          app: the application.
          keys: of which a client must send one; with none, all are let in.
          limits: of bodies; a longer one is refused as soon as that is known.
          count: called with the path of the route and the status of each answer.
        """
        self._app, self._count = app, count
        self._digests = [_digest(key.encode()) for key in keys]
        self._max_bytes, self._body_seconds = limits.body_bytes, limits.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection's request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        try:
            self._check_key(scope)
            body = await self._read(scope, receive)
        except ApiError as error:
            return await error.response(scope, receive, send_counted)
        except _GoneError:
            return None
        handed: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return handed.pop() if handed else await receive()

        return await self._app(scope, receive_again, send_counted)

    def _check_key(self, scope: Scope) -> None:
        if not self._digests or scope["path"] in OPEN_PATHS:
            return
        sent = b""
        for name, value in scope["headers"]:
            kind, _, key = value.partition(b" ")
            if name == b"authorization" and kind.lower() == b"bearer":
                sent = key.strip()
        own = _digest(sent)
        known = False
        for digest in self._digests:  # all of them: time tells nothing
            known |= hmac.compare_digest(own, digest)
        if not known:
            raise ApiError(
                401,
                "no valid key - expected the header authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_bytes:
                raise self._too_large()
        try:
            async with asyncio.timeout(self._body_seconds):
                return await self._collect(receive)
        except TimeoutError:
            raise ApiError(
                408,
                f"body is not there after {self._body_seconds:g} s",
                headers={"connection": "close"},
            ) from None

    async def _collect(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"body is too large - expected at most {self._max_bytes:,} bytes",
            headers={"connection": "close"},
        )


def _digest(key: bytes) -> bytes:
    """What keys are compared by: their lengths tell nothing either."""
    return hashlib.sha256(key).digest()
