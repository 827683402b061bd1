"""Requests: redirects, tokens that go to one host only, statuses, proxies, addresses."""

import base64
import email.utils
import time
from types import SimpleNamespace

import pytest

from tests.download.download_fixtures import BODY, NAME, Heard, quick, source, spec
from tests.download.download_server import Server, cut, redirect, status, with_headers
from tulu_jax.download.http import _retry_after, _Session, _token, shown
from tulu_jax.download.options import FetchOptions
from tulu_jax.download.probe import probe_all
from tulu_jax.download.run import fetch
from tulu_jax.download.sources import plan
from tulu_jax.errors import DataError

SECRET = "hf_verysecret"


@pytest.fixture(autouse=True)
def _token_in_the_environment(monkeypatch):
    monkeypatch.setenv("A_TOKEN", SECRET)


@pytest.fixture
def other():
    """Another host, as far as the name goes."""
    other = Server()
    yield other
    other.close()


def get(url, tmp_path, *, progress=None, options=None, **more):
    one = spec(source(url, **more))
    return (fetch(one, tmp_path, progress=progress, options=options or quick()) / NAME).read_bytes()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server, tmp_path, code):
    target = server.add("/b", BODY)
    assert get(server.add("/a", b"", faults=[redirect("/b", code)]), tmp_path) == BODY
    assert target.endswith("/b")


def test_a_resumed_file_behind_a_redirect(server, tmp_path):
    server.add("/b", BODY, faults=[cut(1000)])
    url = server.add("/a", b"", faults=[redirect("/b"), redirect("/b")])
    assert get(url, tmp_path) == BODY
    assert server.gets("/b")[-1]["Range"] == "bytes=1000-"


def test_redirects_in_a_circle(server, tmp_path):
    url = server.add("/a", b"", faults=[redirect("/b")] * 9)
    server.add("/b", b"", faults=[redirect("/a")] * 9)
    with pytest.raises(DataError, match=r"the server redirects in a circle - got 10 redirects at"):
        get(url, tmp_path)


def test_redirects_without_end(server, tmp_path):
    for n in range(20):
        server.add(f"/{n}", b"", faults=[redirect(f"/{n + 1}")])
    with pytest.raises(DataError, match=r"in a circle - got 10 redirects"):
        get(server.url("/0"), tmp_path)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_to_unsafe_places(server, tmp_path, target):
    url = server.add("/a", b"", faults=[redirect(target)])
    with pytest.raises(DataError, match=r"the server redirects to a place that is not safe"):
        get(url, tmp_path)


def test_redirects_from_https_to_http():
    assert list(_Session("HTTPS://example.org/x").adapters) == ["https://"]
    assert len(_Session("http://example.org/x").adapters) == 2


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "the server refuses - got 302 Found at .* expected 200 OK"),
        ({"Location": "http://[broken/"}, "not an address"),
        ({"Location": "http://127.0.0.1:99999/"}, "not an address"),
    ],
)
def test_redirects_to_nowhere(server, tmp_path, headers, message):
    url = server.add("/a", b"", faults=[status(302, headers)])
    with pytest.raises(DataError, match=message):
        get(url, tmp_path)


def test_a_token_goes_to_its_own_host_only(server, other, tmp_path):
    target = other.add("/b", BODY)
    url = server.add("/a", b"", faults=[redirect("/c")])
    server.add("/c", b"", faults=[redirect(target)])
    assert get(url, tmp_path, token_env="A_TOKEN") == BODY
    for path in ("/a", "/c"):
        assert server.gets(path)[0]["Authorization"] == f"Bearer {SECRET}"
    assert "Authorization" not in other.gets("/b")[0]


def test_a_token_does_not_follow_to_another_name(server, tmp_path):
    """The same machine and port by another name is another host."""
    server.add("/b", BODY)
    url = server.add("/a", b"", faults=[redirect(server.url("/b", host="localhost"))])
    assert get(url, tmp_path, token_env="A_TOKEN") == BODY
    assert "Authorization" not in server.gets("/b")[0]


def test_a_token_does_not_go_to_mirrors(server, other, tmp_path):
    mirror = other.add("/m", BODY)
    assert get(server.url("/gone"), tmp_path, token_env="A_TOKEN", mirrors=(mirror,)) == BODY
    assert "Authorization" not in other.gets("/m")[0]


def test_a_token_goes_over_https_only(monkeypatch):
    monkeypatch.setenv("A_TOKEN", SECRET)
    plain, safe = "http://example.org/x", "https://example.org/x"
    assert _token(source(plain, token_env="A_TOKEN"), plain) == ""
    gated = source(safe, token_env="A_TOKEN")
    assert _token(gated, safe) == SECRET
    assert _token(gated, plain) == _token(gated, "https://example.org:444/x") == ""


def test_no_token_no_header(server, tmp_path, monkeypatch):
    monkeypatch.delenv("A_TOKEN")
    assert get(server.add("/a", BODY), tmp_path, token_env="A_TOKEN") == BODY
    assert "Authorization" not in server.gets("/a")[0]


def test_netrc_is_not_used(server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.add("/b", BODY)
    get(server.add("/a", b"", faults=[redirect("/b")]), tmp_path)
    assert not any("Authorization" in server.gets(path)[0] for path in ("/a", "/b"))


@pytest.mark.parametrize("code", [401, 403])
def test_access_denied(server, tmp_path, monkeypatch, code):
    url = server.add("/a", BODY, faults=[status(code)] * 3)
    with pytest.raises(DataError, match=rf"access denied - got {code} .* A_TOKEN was not accepted"):
        get(url, tmp_path, token_env="A_TOKEN")
    monkeypatch.delenv("A_TOKEN")
    with pytest.raises(DataError, match=r"agree to .* put an access token into A_TOKEN"):
        get(url, tmp_path, token_env="A_TOKEN")
    with pytest.raises(DataError, match=rf"access denied - got {code} \w+ at [^ ]*/a - put the"):
        get(url, tmp_path)
    assert len(server.gets("/a")) == 3  # not tried again


def test_a_secret_is_never_said(server, tmp_path):
    url = server.url("/a").replace("http://", "http://me:hunter2@") + "?signature=abc"
    heard = Heard()
    path = "/a?signature=abc"
    server.add(path, BODY, faults=[status(500), status(403)])
    with pytest.raises(DataError, match="access denied") as caught:
        get(url, tmp_path, token_env="A_TOKEN", progress=heard)
    said = str(caught.value) + "".join(heard.notes)
    assert not any(secret in said for secret in (SECRET, "hunter2", "abc"))
    basic = "Basic " + base64.b64encode(b"me:hunter2").decode()
    assert [h["Authorization"] for h in server.gets(path)] == [basic, basic]
    assert get(url, tmp_path) == BODY
    assert "hunter2" not in (tmp_path / "small" / "checksums.json").read_text()


@pytest.mark.parametrize(
    ("code", "headers", "message"),
    [
        (404, {}, "the file is gone - got 404 Not Found"),
        (410, {}, "the file is gone - got 410 Gone"),
        (451, {}, "the server refuses - got 451 .* expected 200 OK"),
        (429, {"Retry-After": "4000"}, "the server asks to come back in 4,000 s - got 429"),
        (304, {}, "the server refuses - got 304"),
    ],
)
def test_errors_that_stay(server, tmp_path, code, headers, message):
    url = server.add("/a", BODY, faults=[status(code, headers)])
    with pytest.raises(DataError, match=message):
        get(url, tmp_path)
    assert len(server.gets("/a")) == 1


def test_a_limit_that_says_when_to_come_back(server, tmp_path):
    assert get(server.add("/a", BODY, faults=[status(403, {"Retry-After": "0"})]), tmp_path) == BODY


def test_retry_after():
    def after(value):
        return _retry_after(SimpleNamespace(raw=SimpleNamespace(headers={"Retry-After": value})))

    soon = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert after("7") == 7
    assert 90 < after(soon) <= 100
    assert after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert after("soon") is None and after(None) is None


def test_packed_answers_are_refused(server, tmp_path):
    url = server.add("/a", BODY, faults=[with_headers(Content_Encoding="gzip")])
    with pytest.raises(DataError, match=r"packs what it sends, though .* Content-Encoding 'gzip'"):
        get(url, tmp_path)
    assert server.gets("/a")[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "url", ["http://[broken/x", "http://127.0.0.1:99999/x", "http://", "http://a\x00b/x"]
)
def test_not_an_address(tmp_path, url):
    with pytest.raises(DataError, match=r"not an address|no connection"):
        get(url, tmp_path, options=quick(retries=0))


def test_no_such_host(tmp_path):
    with pytest.raises(DataError, match=r"no connection - got a host name that is not found at"):
        get("http://no-such-host.invalid/x", tmp_path, options=quick(retries=0))


def test_a_server_that_speaks_no_tls(server, tmp_path):
    url = server.add("/a", BODY).replace("http:", "https:")
    with pytest.raises(DataError, match=r"certificate is not trusted .* REQUESTS_CA_BUNDLE"):
        get(url, tmp_path, options=quick(retries=0))


def test_a_proxy_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url(""))
    server.add("http://example.invalid/x", BODY)
    assert get("http://example.invalid/x", tmp_path) == BODY
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"got a proxy \(see https_proxy\) that does not answer"):
        get("http://example.invalid/y", tmp_path / "2", options=quick(retries=0))


def test_what_is_shown_of_an_address():
    assert shown("https://u:p@Host:8/a/b?x=1#f") == "https://Host:8/a/b"
    assert shown("raw/small") == "raw/small"
    assert shown("http://[broken") == "an address that cannot be read"


def test_probing(server, tmp_path):
    urls = [server.add("/a", BODY), server.url("/gone")]
    specs = [spec(source(url), name=f"set{n}") for n, url in enumerate(urls)]
    specs.append(spec(source(urls[1], mirrors=(urls[0],)), name="mirrored"))
    specs.append(spec(source(""), name="nowhere"))
    specs.append(spec(source(urls[0]), name="there"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / NAME).write_bytes(BODY)
    found = {e.download.dataset: e for e in probe_all(plan(specs, tmp_path), quick())}
    assert (found["set0"].bytes, found["set0"].where) == (len(BODY), urls[0])
    assert found["set1"].bytes is None and "gone - got 404" in found["set1"].problem
    assert (found["mirrored"].bytes, found["mirrored"].where) == (len(BODY), urls[0])
    assert found["nowhere"].problem == "no address serves it any more"
    assert found["there"].missing == ()
    assert not server.gets("/a")
    local = plan([spec(source("http://127.0.0.1:9/x"), name="there")], tmp_path / "new")
    (probed,) = probe_all(local, FetchOptions(mirror_root=str(tmp_path)))
    assert probed.bytes == len(BODY)
