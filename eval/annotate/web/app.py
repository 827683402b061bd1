"""The application: routes, and what becomes of errors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from eval.annotate.store.database import Database
from eval.annotate.web import admin, login, tasks
from eval.annotate.web.context import PageError, Site, find_user, go, show, wants_json
from eval.annotate.web.guard import Guard
from tulu_jax.console import one_line

LOG = logging.getLogger("tulu.annotate")
GET, POST, BOTH = ["GET"], ["POST"], ["GET", "POST"]

ROUTES = [
    Route("/login", login.log_in, methods=BOTH),
    Route("/logout", login.log_out, methods=POST),
    Route("/join/{token}", login.join, methods=BOTH),
    Route("/settings", login.settings, methods=BOTH),
    Route("/", tasks.home, methods=GET),
    Route("/go", tasks.go_on, methods=POST),
    Route("/task/{position:int}", tasks.task, methods=BOTH),
    Route("/task/{position:int}/later", tasks.later, methods=POST),
    Route("/my-answers.csv", tasks.own_answers, methods=GET),
    Route("/admin", admin.dashboard, methods=GET),
    Route("/admin/people", admin.people, methods=GET),
    Route("/admin/invite", admin.invite, methods=POST),
    Route("/admin/people/{handle}", admin.change_person, methods=POST),
    Route("/admin/disagreements", admin.list_disagreements, methods=GET),
    Route("/admin/adjudicate/{instance:int}", admin.adjudicate_one, methods=BOTH),
    Route("/admin/study", admin.study, methods=BOTH),
    Route("/admin/export/{format}", admin.export, methods=GET),
]


class _Static(StaticFiles):
    """Script and style, which browsers keep: their address has a version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        answer = super().file_response(*args, **kwargs)
        answer.headers["cache-control"] = "public, max-age=31536000, immutable"
        return answer


def make_app(
    database: Database,
    *,
    secure: bool = False,
    origin: str = "",
    **options: Any,
) -> Guard:
    """The application of a study.

    Args:
      database: the study's.
      secure: whether browsers reach it by TLS: cookies then go by TLS only.
      origin: how the addresses of invitations begin; else as the administrator came.
      options: of `Site` (rate limits) and `Guard` (bounds of bodies).
    """
    bounds = {name: options.pop(name) for name in ("body_bytes", "body_seconds") if name in options}
    static = _Static(directory=Path(__file__).parent / "static")
    app = Starlette(
        routes=[
            *ROUTES,
            Route("/health", _health, methods=GET),
            Mount("/static", static, name="static"),
        ],
        exception_handlers={
            PageError: _page_error,
            HTTPException: _http_error,
            SQLAlchemyError: _database_error,
            Exception: _own_fault,
        },
    )
    app.state.site = Site(database, secure=secure, origin=origin, **options)
    return Guard(app, secure=secure, **bounds)


def _health(request: Request) -> Response:
    request.app.state.site.database.study()
    return PlainTextResponse("ok\n")


def _page_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PageError)
    if wants_json(request):
        return JSONResponse({"wrong": error.words}, error.status)
    if error.to is not None:
        return go(error.to)
    return _message(request, error.status, error.words)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "There is no such page.", 405: "That cannot be done here."}
    return _message(request, error.status_code, words.get(error.status_code, "That failed."))


def _database_error(request: Request, error: Exception) -> Response:
    """Nothing was kept: our script sends it again."""
    LOG.error("database: %s", one_line(str(getattr(error, "orig", None) or error), 300))
    words = "The database does not answer. Nothing is lost: please try again in a moment."
    if wants_json(request):
        return JSONResponse({"again": words}, 503)
    return PlainTextResponse(f"{words}\n", 503, headers={"retry-after": "5"})


def _own_fault(request: Request, error: Exception) -> Response:
    """What nobody foresaw; what was asked, and of whom, is in no log."""
    LOG.error("fault: %s in %s", type(error).__name__, request.scope.get("route"))
    if wants_json(request):
        return JSONResponse({"again": "The server failed."}, 500)
    return PlainTextResponse("The server failed. Nothing that was saved is lost.\n", 500)


def _message(request: Request, status: int, words: str) -> Response:
    if wants_json(request):
        return JSONResponse({"wrong": words}, status)
    try:
        user = find_user(request)
    except SQLAlchemyError:
        user = None
    return show(request, "message.html", status, user=user, words=words)
