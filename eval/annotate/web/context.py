"""What every page is made with: who asks, the form that came, the template that answers."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jinja2
from itsdangerous import BadSignature, URLSafeSerializer
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from eval.annotate import text
from eval.annotate.instances import fit
from eval.annotate.store import accounts
from eval.annotate.store.accounts import User
from eval.annotate.store.database import Database
from eval.annotate.web.guard import BODY
from tulu_jax.files import sha256

SESSION = "annotate_session"
VISIT = "annotate_visit"
CSRF, CSRF_HEADER = "csrf", "x-csrf-token"
LARGEST = 2**31 - 1
"""No number of a row is larger."""
FIELDS = 40
"""Fields of a form, at most."""
BY_NAME = RateLimitItemPerMinute(10, 15)
"""Log-ins tried to one account."""
BY_ADDRESS = RateLimitItemPerMinute(40, 15)
"""Log-ins and invitations tried from one address."""


class PageError(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, words: str, *, to: str | None = None) -> None:
        """Holds what is answered; `to` is where a browser is sent instead."""
        super().__init__(words)
        self.status, self.words, self.to = status, words, to


@dataclass
class Site:
    """What all requests share."""

    database: Database
    secure: bool = False
    """Whether browsers reach it by TLS."""
    origin: str = ""
    """How invitations begin: https://lab.example; empty takes it from the request."""
    by_name: RateLimitItemPerMinute = BY_NAME
    by_address: RateLimitItemPerMinute = BY_ADDRESS
    pages: jinja2.Environment = field(init=False)
    signer: URLSafeSerializer = field(init=False)
    secret: str = field(init=False)
    limiter: MovingWindowRateLimiter = field(init=False)
    hashing: threading.Semaphore = field(init=False)
    """Held while a password is hashed: that takes much memory and time."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What pages keep between requests."""
    version: str = field(init=False)
    """Of script and style: browsers keep them until it changes."""

    def __post_init__(self) -> None:
        """Makes what the fields say."""
        self.pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.pages.globals.update(render=text.render, plain=text.plain)
        self.secret = self.database.study().secret
        self.signer = URLSafeSerializer(self.secret, salt="form")
        self.hashing = threading.Semaphore(2)
        self.limiter = MovingWindowRateLimiter(MemoryStorage())
        static = Path(__file__).parent / "static"
        files = (path.read_bytes() for path in sorted(static.iterdir()) if path.is_file())
        self.version = sha256(b"".join(files))[:12]

    def cookie(self, name: str) -> str:
        """The cookie's name: browsers take `__Host-` from this very host by TLS only."""
        return f"__Host-{name}" if self.secure else name

    def set_cookie(self, response: Response, name: str, value: str, seconds: float) -> None:
        """Sets a cookie that no script reads and no other site sends."""
        response.set_cookie(self.cookie(name), value, max_age=int(seconds), httponly=True,
                            samesite="lax", secure=self.secure, path="/")  # fmt: skip

    def csrf(self, bound: str) -> str:
        """What a form carries to show that it is ours: bound to a session or visit."""
        return hmac.new(self.secret.encode(), f"csrf:{bound}".encode(), "sha256").hexdigest()

    def sign_time(self, *about: Any) -> str:
        """A time that comes back with a form, and cannot be made up."""
        return self.signer.dumps([round(time.time(), 1), *about])  # type: ignore[return-value]

    def seconds_since(self, signed: str, *about: Any) -> float | None:
        """Seconds since `sign_time` made this about the same; None where it did not."""
        try:
            then, *rest = self.signer.loads(signed)
        except (BadSignature, ValueError, TypeError):
            return None
        return max(0.0, time.time() - then) if rest == list(about) else None


def site(request: Request) -> Site:
    """The site that a request came to."""
    return request.app.state.site


def token(request: Request) -> str:
    """The session's token that a browser sent, or nothing."""
    return request.cookies.get(site(request).cookie(SESSION), "")


def find_user(request: Request) -> User | None:
    """Who asks, if logged in."""
    sent = token(request)
    return accounts.find_session(site(request).database, sent) if sent else None


def need_user(request: Request) -> User:
    """Who asks.

    Raises: PageError that leads to the log-in.
    """
    user = find_user(request)
    if user is None:
        raise PageError(401, "Please log in.", to="/login")
    return user


def need_admin(request: Request) -> User:
    """The administrator who asks.

    Raises: PageError: to others the page is not there.
    """
    user = need_user(request)
    if not user.is_admin:
        raise PageError(404, "There is no such page.")
    return user


def need_annotator(request: Request) -> User:
    """The annotator who asks: an administrator has seen the models' names.

    Raises: PageError.
    """
    user = need_user(request)
    if user.is_admin:
        raise PageError(403, "Administrators see which model is which, and do not annotate.",
                        to="/admin" if request.method == "GET" else None)  # fmt: skip
    return user


def read_form(request: Request, *, bound: str | None = None) -> dict[str, str]:
    """The fields of a form that our own page sent.

    Raises: PageError for a form of another site, of an ended session, or that is no form.
    """
    check_origin(request)
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise PageError(415, "The form is of an unknown kind.")
    try:
        pairs = parse_qsl(request.scope[BODY].decode("ascii"), keep_blank_values=True,
                          max_num_fields=FIELDS, encoding="utf-8", errors="strict")  # fmt: skip
    except ValueError:
        raise PageError(400, "The form cannot be read.") from None
    form = {name: fit(value) for name, value in pairs}
    sent = request.headers.get(CSRF_HEADER) or form.get(CSRF, "")
    expected = site(request).csrf(token(request) if bound is None else bound)
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        raise PageError(403, "The form is too old, or of another session. Please load the page "
                             "anew: what you wrote is kept in the browser.")  # fmt: skip
    return form


def check_origin(request: Request) -> None:
    """Refuses what another site's page sent.

    Raises: PageError.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise PageError(403, "The form is of another site.")
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise PageError(403, "The form is of another site.")


def throttle(request: Request, name: str) -> None:
    """Counts a try to log in.

    Raises: PageError where there were too many, from this address or to this account.
    """
    here = site(request)
    address = request.client.host if request.client else ""
    named = sha256(accounts.fold(name)[:200])
    fits = here.limiter.hit(here.by_address, "address", address)
    if not (fits and here.limiter.hit(here.by_name, "name", named)):
        raise PageError(429, "Too many tries. Please wait a quarter of an hour.")


def show(
    request: Request, page: str, status: int = 200, *, bound: str | None = None, **values: Any
) -> HTMLResponse:
    """A page from its template."""
    here = site(request)
    html = here.pages.get_template(page).render(
        {
            "csrf": here.csrf(token(request) if bound is None else bound),
            "user": values.pop("user", None),
            "version": here.version,
            "study": values.pop("study", None) or here.database.study(),
            **values,
        }
    )
    return HTMLResponse(html, status)


def number(request: Request, name: str) -> int:
    """The number in an address.

    Raises: PageError for one that no database has.
    """
    found = request.path_params[name]
    if found > LARGEST:
        raise PageError(404, "There is no such page.")
    return found


def go(to: str) -> RedirectResponse:
    """Sends the browser to another page, by GET."""
    return RedirectResponse(to, 303)


def wants_json(request: Request) -> bool:
    """Whether our script asks, and no browser by itself."""
    return request.headers.get("accept", "") == "application/json"


def new_visit(request: Request) -> str:
    """What binds the forms of somebody who is not logged in yet."""
    return request.cookies.get(site(request).cookie(VISIT), "") or secrets.token_urlsafe(16)
