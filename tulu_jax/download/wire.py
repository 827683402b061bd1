"""One request: redirects followed by hand, the access token shown to one host only."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

import requests
import urllib3

from tulu_jax import __version__
from tulu_jax.data.specs import Source
from tulu_jax.download.options import GiveUp, TryAgain

MAX_REDIRECTS = 10
MAX_RETRY_AFTER_S = 600
_REDIRECTS = {301, 302, 303, 307, 308}
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 529}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Access:
    """What proves the right to a file, and the one origin (scheme, host, port) it is sent to."""

    origin: tuple[str, str, int | None] | None = None
    header: str | None = field(default=None, repr=False)
    token_env: str | None = None

    def headers(self, url: str) -> dict[str, str]:
        """The headers for this address: none for any other origin than its own."""
        if self.header is None or origin(url) != self.origin:
            return {}
        return {"Authorization": self.header}


def access_for(source: Source, url: str) -> Access:
    """The access to `url`: the token that `source.token_env` names, or `user:password@` in `url`.

    A token goes to the origin of the source's published address and nowhere else, and only over
    https (or to this machine itself).
    """
    parts = _split(url)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        return Access(origin(url), "Basic " + base64.b64encode(pair).decode())
    token = os.environ.get(source.token_env or "", "").strip()
    if not token:
        return Access(token_env=source.token_env)
    home = origin(source.url)
    if home[0] != "https" and home[1] not in ("127.0.0.1", "localhost", "::1"):
        return Access(token_env=source.token_env)
    return Access(home, f"Bearer {token}", source.token_env)


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address."""
    parts = _split(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise GiveUp("not an address", got=error, at=shown(url)) from error
    return parts


def shown(url: str) -> str:
    """The address as it may be printed: without password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if parts.scheme else url


class _Session(requests.Session):
    """One that does not look where an answer redirects to: `requests` would read its body."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere."""


@contextlib.contextmanager
def request(
    url: str,
    access: Access,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    timeout_s: float = 60.0,
) -> Iterator[Any]:
    """The answer (`requests.Response`, body unread): 200, 206 or 416, after redirects.

    Raises: TryAgain when it may work later; GiveUp when it will not.
    """
    sent = {"Accept-Encoding": "identity", "User-Agent": f"tulu-jax/{__version__}"}
    sent.update(headers or {})
    with _Session() as session, contextlib.ExitStack() as stack:
        place, visited = url, [url]
        while True:
            answer = _ask(session, method, place, {**sent, **access.headers(place)}, timeout_s)
            stack.callback(answer.close)
            if answer.status_code not in _REDIRECTS:
                break
            place = _next_place(answer, place, visited, at=shown(url))
            visited.append(place)
        _check_status(answer, access, sent_token=bool(access.headers(place)), at=shown(url))
        yield answer


def _ask(
    session: requests.Session, method: str, url: str, headers: dict[str, str], timeout_s: float
) -> requests.Response:
    def keep(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        return prepared  # an `auth` of our own: or else requests would look into ~/.netrc

    try:
        return session.request(
            method,
            url,
            headers=headers,
            stream=True,
            allow_redirects=False,
            auth=keep,
            timeout=(timeout_s, timeout_s),
        )
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidHeader,
        urllib3.exceptions.LocationParseError,
        UnicodeError,
    ) as error:
        raise GiveUp("not an address", got=type(error).__name__, at=shown(url)) from error
    except requests.exceptions.SSLError as error:
        raise GiveUp(
            "the server's certificate is not trusted",
            got=_reason(error, timeout_s),
            at=shown(url),
            do="check the clock and REQUESTS_CA_BUNDLE; a proxy may need its own certificate there",
        ) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise TryAgain("no connection", got=_reason(error, timeout_s), at=shown(url)) from error


def read_body(
    answer: Any, *, timeout_s: float, min_rate: float, at: str, clock: Callable[[], float]
) -> Iterator[bytes]:
    """The bytes of the answer as they come.

    Raises: TryAgain when the connection breaks, or brings fewer than `min_rate` bytes a second
        over `timeout_s` seconds.
    """
    since, came = clock(), 0
    while True:
        try:
            block = answer.raw.read1(1 << 20, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise TryAgain(
                "the connection was cut", got=_reason(error, timeout_s), at=at
            ) from error
        if not block:
            return
        yield block
        came += len(block)
        if (elapsed := clock() - since) > timeout_s:
            if came < min_rate * elapsed:
                raise TryAgain(
                    "the server all but stopped",
                    got=f"{came:,} bytes in {elapsed:.0f} s",
                    at=at,
                    expected=f"{min_rate:,.0f} bytes a second",
                )
            since, came = clock(), 0


def _next_place(answer: Any, place: str, visited: list[str], *, at: str) -> str:
    target = answer.headers.get("Location")
    if not target:
        raise GiveUp("the server redirects to nowhere", got="no Location", at=at)
    try:
        target = urljoin(place, target)
    except ValueError as error:
        raise GiveUp("the server redirects to nowhere", got="no address", at=at) from error
    scheme, was = origin(target)[0], origin(place)[0]
    if scheme not in ("http", "https") or (was == "https" and scheme == "http"):
        raise GiveUp("the server redirects to a place that is not safe", got=shown(target), at=at)
    if target in visited or len(visited) > MAX_REDIRECTS:
        raise GiveUp("the server redirects in a circle", got=f"{len(visited)} redirects", at=at)
    return target


def _check_status(answer: Any, access: Access, *, sent_token: bool, at: str) -> None:
    status = answer.status_code
    if status in (200, 206, 416):
        return
    got = f"{status} {answer.reason or ''}".strip()
    wait_s = _retry_after(answer.headers.get("Retry-After"))
    if status in _TRY_AGAIN or (status == 403 and wait_s is not None):
        if wait_s is not None and wait_s > MAX_RETRY_AFTER_S:
            raise GiveUp(f"the server asks to come back in {wait_s:,.0f} s", got=got, at=at)
        error = TryAgain("the server is busy or broken", got=got, at=at)
        error.wait_s = wait_s or 0.0
        raise error
    if status in (401, 403):
        raise GiveUp("access denied", got=got, at=at, do=_access_hint(access, sent_token))
    if status in (404, 410):
        raise GiveUp("the file is gone", got=got, at=at)
    raise GiveUp("the server refuses", got=got, at=at, expected="200 OK")


def _access_hint(access: Access, sent_token: bool) -> str | None:
    name = access.token_env
    if name is None:
        return None
    if sent_token:
        return (
            f"the token in {name} was not accepted: see that it is valid, and that its account "
            "has agreed to the dataset's terms on its page"
        )
    return f"agree to the dataset's terms on its page, then put an access token into {name}"


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _reason(error: BaseException, timeout_s: float) -> str:
    """What broke, in few words. Texts of the libraries are not used: they quote whole addresses."""
    chain: list[BaseException] = []
    queue: list[Any] = [error]
    while queue:
        item = queue.pop()
        if isinstance(item, BaseException) and item not in chain:
            chain.append(item)
            queue += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    names = {type(item).__name__ for item in chain}
    if any("Timeout" in name or name == "timeout" for name in names):
        return f"no answer for {timeout_s:g} s"
    if names & {"NameResolutionError", "gaierror"}:
        return "a host name that is not found"
    if "ProxyError" in names:
        return "a proxy (see https_proxy) that does not answer"
    if "ConnectionRefusedError" in names:
        return "connection refused"
    if "IncompleteRead" in names:
        return "fewer bytes than announced"
    strerrors = [i.strerror for i in chain if isinstance(i, OSError) and i.strerror]
    return strerrors[-1] if strerrors else type(chain[-1]).__name__
