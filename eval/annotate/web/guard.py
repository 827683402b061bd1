"""What stands before every page: bounds on a body's size and time, and headers of safety."""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 256 * 1024
"""No form is longer: a comment has 10,000 characters, of twelve bytes each at most."""
BODY_SECONDS = 20.0
BODY = "annotate.body"
"""Where a request has its whole body: pages are made in threads, which do not wait for parts."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Lets requests through to the application, each with its whole body, or answers itself."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        secure: bool,
        body_bytes: int = BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        """Guards an application; `secure` says that browsers reach it by TLS."""
        self._app, self._secure = app, secure
        self._bytes, self._seconds = body_bytes, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if self._secure:
                    headers["strict-transport-security"] = "max-age=31536000"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        body, status = await self._read(scope, receive)
        if status:
            text = "too large" if status == 413 else "too slow"
            refusal = PlainTextResponse(
                f"The form is {text}.\n", status, headers={"connection": "close"}
            )
            return await refusal(scope, receive, send_safely)
        if body is None:  # the client is gone
            return None
        scope[BODY] = body
        return await self._app(scope, receive, send_safely)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[bytes | None, int]:
        """The body, or the status of a refusal."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._bytes:
                return None, 413
        try:
            async with asyncio.timeout(self._seconds):
                return await self._collect(receive)
        except TimeoutError:
            return None, 408

    async def _collect(self, receive: Receive) -> tuple[bytes | None, int]:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None, 0
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._bytes:
                return None, 413
            more = message.get("more_body", False)
        return b"".join(parts), 0
