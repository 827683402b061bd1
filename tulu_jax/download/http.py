"""One request over `requests`: the access token shown to one host only, faults put into words."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url

from tulu_jax import __version__
from tulu_jax.download.options import GiveUp, TryAgain
from tulu_jax.download.sources import Source

MAX_REDIRECTS = 10
MAX_RETRY_AFTER_S = 600


class _Session(requests.Session):
    """One that never looks for passwords in ~/.netrc, nor follows from https to another scheme."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.max_redirects = MAX_REDIRECTS
        if url.lower().startswith("https:"):
            del self.adapters["http://"]

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Takes the token away when it is redirected to another host, port or scheme."""
        if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):
            prepared_request.headers.pop("Authorization", None)


@contextlib.contextmanager
def request(
    url: str,
    source: Source,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    timeout_s: float = 60.0,
) -> Iterator[requests.Response]:
    """The answer, its body unread: 200, 206 or 416, after redirects.

    Raises: TryAgain when it may work later; GiveUp when it will not.
    """
    at = shown(url)
    sent = {"Accept-Encoding": "identity", "User-Agent": f"tulu-jax/{__version__}"}
    with _Session(url) as session:
        try:
            token = _token(source, url)
            answer = session.request(
                method,
                url,
                headers={**sent, **(headers or {})},
                stream=True,
                timeout=timeout_s,
                auth=lambda prepared: _with_access(prepared, url, token),
            )
        except requests.TooManyRedirects as error:
            got = f"{MAX_REDIRECTS} redirects"
            raise GiveUp("the server redirects in a circle", got=got, at=at) from error
        except requests.exceptions.InvalidSchema as error:
            raise GiveUp("the server redirects to a place that is not safe", at=at) from error
        except ValueError as error:  # the kinds of exceptions that `requests` has for this, too
            raise GiveUp("not an address", got=type(error).__name__, at=at) from error
        except requests.exceptions.SSLError as error:
            raise GiveUp(
                "the server's certificate is not trusted",
                got=_reason(error, timeout_s),
                at=at,
                do="check the clock and REQUESTS_CA_BUNDLE; a proxy may need its own certificate "
                "there",
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise TryAgain("no connection", got=_reason(error, timeout_s), at=at) from error
        with answer:
            _check_status(answer, source, sent_token=bool(token), at=at)
            yield answer


def read_body(
    answer: requests.Response, *, timeout_s: float, min_rate: float, at: str
) -> Iterator[bytes]:
    """The bytes of the answer as they come.

    Raises: TryAgain when the connection breaks, or brings fewer than `min_rate` bytes a second
        over `timeout_s` seconds.
    """
    since, came = time.monotonic(), 0
    while True:
        try:
            block = answer.raw.read1(1 << 20, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            got = _reason(error, timeout_s)
            raise TryAgain("the connection was cut", got=got, at=at) from error
        if not block:
            return
        yield block
        came += len(block)
        if (elapsed := time.monotonic() - since) > timeout_s:
            if came < min_rate * elapsed:
                raise TryAgain(
                    "the server all but stopped",
                    got=f"{came:,} bytes in {elapsed:.0f} s",
                    at=at,
                    expected=f"{min_rate:,.0f} bytes a second",
                )
            since, came = time.monotonic(), 0


def shown(url: str) -> str:
    """The address as it may be printed: without password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if parts.scheme else url


def _token(source: Source, url: str) -> str:
    """The token of a gated source, for its published address and no mirror, over https only."""
    home, there = urlsplit(source.url), urlsplit(url)
    safe = home.scheme == "https" or home.hostname in ("127.0.0.1", "localhost", "::1")
    if not safe or home[:2] != there[:2]:  # scheme, and host with port
        return ""
    return os.environ.get(source.token_env or "", "").strip()


def _with_access(
    prepared: requests.PreparedRequest, url: str, token: str
) -> requests.PreparedRequest:
    """The request with `user:password@` of its address, or else with the token."""
    user, password = get_auth_from_url(url)
    if user or password:
        return HTTPBasicAuth(user, password)(prepared)
    if token:
        prepared.headers["Authorization"] = f"Bearer {token}"
    return prepared


def _check_status(answer: requests.Response, source: Source, *, sent_token: bool, at: str) -> None:
    status = answer.status_code
    if status in (200, 206, 416):
        return
    got = f"{status} {answer.reason or ''}".strip()
    wait_s = _retry_after(answer)
    if status in (408, 425, 429) or status >= 500 or (status == 403 and wait_s is not None):
        if wait_s is not None and wait_s > MAX_RETRY_AFTER_S:
            raise GiveUp(f"the server asks to come back in {wait_s:,.0f} s", got=got, at=at)
        error = TryAgain("the server is busy or broken", got=got, at=at)
        error.wait_s = wait_s or 0.0
        raise error
    if status in (401, 403):
        hint = _access_hint(source.token_env, sent_token=sent_token)
        raise GiveUp("access denied", got=got, at=at, do=hint)
    if status in (404, 410):
        raise GiveUp("the file is gone", got=got, at=at)
    raise GiveUp("the server refuses", got=got, at=at, expected="200 OK")


def _access_hint(name: str | None, *, sent_token: bool) -> str | None:
    if name is None:
        return None
    if sent_token:
        return (
            f"the token in {name} was not accepted: see that it is valid, and that its account "
            "has agreed to the dataset's terms on its page"
        )
    return f"agree to the dataset's terms on its page, then put an access token into {name}"


def _retry_after(answer: requests.Response) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    try:
        return urllib3.Retry().get_retry_after(answer.raw)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _reason(error: BaseException, timeout_s: float) -> str:
    """What broke, in few words. Texts of the libraries are not used: they quote whole addresses."""
    chain: list[Any] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    names = {type(item).__name__ for item in chain}
    for name, words in {
        "ProxyError": "a proxy (see https_proxy) that does not answer",
        "NameResolutionError": "a host name that is not found",
        "ConnectionRefusedError": "connection refused",
        "IncompleteRead": "fewer bytes than announced",
    }.items():
        if name in names:
            return words
    if any("Timeout" in name for name in names):
        return f"no answer for {timeout_s:g} s"
    strerrors = [i.strerror for i in chain if isinstance(i, OSError) and i.strerror]
    return strerrors[-1] if strerrors else type(chain[-1]).__name__
