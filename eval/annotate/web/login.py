"""Log-in, invitations, log-out, and what a user chooses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from eval.annotate.store import accounts
from eval.annotate.web import keys
from eval.annotate.web.context import (
    SESSION,
    VISIT,
    PageError,
    find_user,
    go,
    need_user,
    new_visit,
    read_form,
    show,
    site,
    throttle,
    token,
)
from tulu_jax.errors import ConfigError

VISIT_SECONDS = 3600.0


def log_in(request: Request) -> Response:
    """The form of name and password, and what it sends."""
    if request.method == "GET":
        return _log_in_form(request)
    visit = request.cookies.get(site(request).cookie(VISIT), "")
    form = read_form(request, bound=f"visit:{visit}")
    name, password = form.get("name", ""), form.get("password", "")
    throttle(request, name)
    with site(request).hashing:
        user = accounts.log_in(site(request).database, name, password)
    if user is None:
        return _log_in_form(request, 401, "Name or password is wrong.", name)
    return _begin_session(request, user)


def _log_in_form(request: Request, status: int = 200, wrong: str = "", name: str = "") -> Response:
    user = find_user(request)
    if user is not None and status == 200:
        return go("/")
    visit = new_visit(request)
    page = show(request, "login.html", status, bound=f"visit:{visit}", wrong=wrong, name=name[:64])
    site(request).set_cookie(page, VISIT, visit, VISIT_SECONDS)
    return page


def _begin_session(request: Request, user: accounts.User) -> Response:
    """A session under a new token, whatever the browser sent before."""
    here = site(request)
    if token(request):
        accounts.end_session(here.database, token(request))
    answer = go("/")
    here.set_cookie(answer, SESSION, accounts.start_session(here.database, user),
                    accounts.SESSION_SECONDS)  # fmt: skip
    answer.delete_cookie(here.cookie(VISIT), path="/", secure=here.secure)
    return answer


def log_out(request: Request) -> Response:
    """Ends the session."""
    read_form(request)
    here = site(request)
    accounts.end_session(here.database, token(request))
    answer = go("/login")
    answer.delete_cookie(here.cookie(SESSION), path="/", secure=here.secure)
    return answer


def join(request: Request) -> Response:
    """An invitation: who has it chooses a password, once."""
    here, sent = site(request), request.path_params["token"]
    if request.method == "GET":
        throttle_join(request)
        return _join_form(request, sent)
    visit = request.cookies.get(here.cookie(VISIT), "")
    form = read_form(request, bound=f"visit:{visit}")
    throttle_join(request)
    if form.get("password", "") != form.get("again", ""):
        return _join_form(request, sent, 400, "The two passwords differ.")
    try:
        with here.hashing:
            user = accounts.accept(here.database, sent, form.get("password", ""))
    except ConfigError as error:
        return _join_form(request, sent, 400, str(error))
    if user is None:
        raise _no_invitation()
    return _begin_session(request, user)


def throttle_join(request: Request) -> None:
    """Counts a try of an invitation: by address only."""
    here = site(request)
    address = request.client.host if request.client else ""
    if not here.limiter.hit(here.by_address, "join", address):
        raise PageError(429, "Too many tries. Please wait a quarter of an hour.")


def _no_invitation() -> PageError:
    return PageError(404, "This invitation is not good any more: it was used, or it has expired. "
                          "Please ask for another one.")  # fmt: skip


def _join_form(request: Request, sent: str, status: int = 200, wrong: str = "") -> Response:
    with site(request).database.read() as connection:
        found = accounts.find_invitation(connection, sent)
    if found is None:
        raise _no_invitation()
    visit = new_visit(request)
    page = show(request, "join.html", status, bound=f"visit:{visit}", wrong=wrong, name=found.name,
                shortest=accounts.SHORTEST, again=found.user_id is not None)  # fmt: skip
    site(request).set_cookie(page, VISIT, visit, VISIT_SECONDS)
    return page


def settings(request: Request) -> Response:
    """The user's keys, and whether pages go on by themselves."""
    user = need_user(request)
    if request.method == "GET":
        return _settings_form(request, user)
    form = read_form(request)
    try:
        chosen = keys.read_keys({} if form.get("reset") else form)
    except ConfigError as error:
        return _settings_form(request, user, 400, str(error))
    with site(request).database.write() as connection:
        accounts.set_settings(connection, user.id, {"keys": chosen, "auto": "auto" in form})
    return go("/settings?saved=1")


def _settings_form(
    request: Request, user: accounts.User, status: int = 200, wrong: str = ""
) -> Response:
    chosen = keys.keys_of(user)
    return show(
        request, "settings.html", status, user=user, wrong=wrong,
        saved="saved" in request.query_params, auto=user.settings.get("auto", False),
        actions=[(name, one.words, chosen[name]) for name, one in keys.ACTIONS.items()],
    )  # fmt: skip
