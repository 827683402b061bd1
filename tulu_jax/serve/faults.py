"""What a client is told when something is wrong: OpenAI's error object, whatever it is."""

from __future__ import annotations

import http
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHttpException

SHOWN_FAULTS = 3
"""Of a body with many, so many are told."""

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""Types of errors by status, as OpenAI's server has them; other ones of the client are
`invalid_request_error`."""

_WORDS = {
    "extra_forbidden": "unknown field, or one that is not supported here",
    "missing": "field is missing",
    "json_invalid": "body is no JSON",
}


class ApiError(HTTPException):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """An error with a status of HTTP, and the field and code that OpenAI's object has."""
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return error_body(self.status_code, self.detail, self.param, self.code)

    @property
    def response(self) -> JSONResponse:
        """The error as an answer."""
        return JSONResponse(self.body, self.status_code, self.headers)


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "server_error" if status >= 500 else KINDS.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def on_api_error(_: Request, error: Exception) -> JSONResponse:
    """Answers an `ApiError`, or what the framework itself refuses: paths, methods."""
    if isinstance(error, ApiError):
        return error.response
    assert isinstance(error, AnyHttpException)
    known = http.HTTPStatus(error.status_code)
    message = f"{known.phrase.lower()} - got {_.method} {reprlib.repr(_.url.path)}"
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


async def on_invalid_body(_: Request, error: Exception) -> JSONResponse:
    """Answers a body that is not as the schema says, naming its fields."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    told = "; ".join(map(_fault, faults[:SHOWN_FAULTS]))
    more = len(faults) - SHOWN_FAULTS
    message = told + (f"; and {more} more" if more > 0 else "")
    return JSONResponse(error_body(400, message, _place(faults[0]["loc"])), 400)


async def on_own_fault(_: Request, __: Exception) -> JSONResponse:
    """Answers what nobody foresaw; the log has the traceback."""
    return JSONResponse(error_body(500, "a fault of the server itself; its log says more"), 500)


def _fault(fault: Mapping[str, Any]) -> str:
    what = _WORDS.get(fault["type"]) or fault["msg"][:1].lower() + fault["msg"][1:]
    place = _place(fault["loc"])
    if place is None and not isinstance(fault["input"], dict):
        return "body is no JSON object - expected one, and content-type: application/json"
    got = "" if fault["type"] in _WORDS else f" - got {reprlib.repr(fault['input'])}"
    return f"{what}{got}" + (f" at {place}" if place else "")


def _place(parts: Sequence[Any]) -> str | None:
    names = ".".join(
        reprlib.repr(part).strip("'") for part in parts if part not in ("body", "query")
    )
    return names or None
