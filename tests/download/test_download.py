"""Fetching whole files: resumed, retried, verified; from a server that misbehaves."""

import _thread
import random
import signal
import time

import pytest

from tests.download.download_fixtures import (
    BODY,
    NAME,
    Heard,
    quick,
    rows,
    sha256,
    source,
    spec,
    tree,
)
from tests.download.download_server import (
    chunked,
    cut,
    drip,
    hang_up,
    lie,
    page,
    stall,
    status,
    with_headers,
)
from tulu_jax.download.run import fetch, fetch_all
from tulu_jax.download.sources import Origin, plan
from tulu_jax.download.transfer import Unfinished, transfer
from tulu_jax.errors import DataError


@pytest.mark.parametrize("seed", range(5))
def test_connections_cut_anywhere(get, server, seed):
    draw = random.Random(seed)
    cuts = [draw.choice([0, 1, 511, 512, draw.randrange(len(BODY))]) for _ in range(3)]
    assert get(*(cut(at) for at in cuts)) == BODY
    asked = [headers.get("Range") for headers in server.gets("/rows.jsonl")]
    assert len(asked) == 4 and any(asked) == any(cuts)


def test_goes_on_in_a_later_run(server, tmp_path):
    url = server.add("/rows.jsonl", BODY, faults=[cut(100_000)])
    with pytest.raises(DataError, match=r"the connection was cut - got fewer bytes than announced"):
        fetch(spec(source(url)), tmp_path, options=quick(retries=0))
    part = next((tmp_path / "small" / ".download").glob("*.part"))
    assert part.read_bytes() == BODY[:100_000]
    fetch(spec(source(url)), tmp_path, options=quick(retries=0))
    last = server.gets("/rows.jsonl")[-1]
    assert (last["Range"], last["If-Range"]) == ("bytes=100000-", '"v1"')
    assert tree(tmp_path / "small").keys() == {NAME, "checksums.json"}
    assert (tmp_path / "small" / NAME).read_bytes() == BODY


def test_a_server_without_ranges_is_begun_anew(get, server):
    assert get(cut(1000), cut(70_000), ranges=False) == BODY


def test_a_server_without_marks_is_begun_anew(get, server):
    assert get(cut(1000), etag=None) == BODY
    assert all("Range" not in headers for headers in server.gets("/rows.jsonl"))


def test_a_checksum_lets_it_go_on_without_marks(get, server):
    assert get(cut(1000), etag=None, sha=sha256(BODY)) == BODY
    last = server.gets("/rows.jsonl")[-1]
    assert last["Range"] == "bytes=1000-" and "If-Range" not in last


def test_a_weak_etag_is_no_if_range(get, server):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert get(cut(1000), etag='W/"v1"', last_modified=date) == BODY
    last = server.gets("/rows.jsonl")[-1]
    assert last["Range"] == "bytes=1000-" and last["If-Range"] == date


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_between_attempts(server, tmp_path, honest):
    other = rows(seed=1)

    def change(handler, file):
        cut(5000)(handler, file)
        file.body, file.etag = other, '"v2"'

    def ignore_if_range(handler, file):
        del handler.headers["If-Range"]
        cut(len(other))(handler, file)

    faults = [change] if honest else [change, ignore_if_range]
    url = server.add("/rows.jsonl", BODY, faults=faults)
    heard = Heard()
    folder = fetch(spec(source(url)), tmp_path, options=quick(), progress=heard)
    assert (folder / NAME).read_bytes() == other
    assert honest == (not any("of the same version" in note for note in heard.notes))


def test_a_wrong_content_range_is_begun_anew(get):
    heard = Heard()
    wrong = with_headers(Content_Range=f"bytes 7-{len(BODY) - 1}/{len(BODY)}")
    assert get(cut(1000), wrong, progress=heard) == BODY
    assert "cannot go on where it stopped, the file is fetched anew - got 206" in heard.notes[1]
    assert "expected bytes 1000-" in heard.notes[1]
    missing = with_headers(Content_Range=None)
    assert get(cut(1000), missing, body=BODY) == BODY


def test_a_part_nobody_asked_for(get):
    heard = Heard()
    assert get(status(206, body=BODY), progress=heard) == BODY
    assert "cannot go on where it stopped, the file is fetched anew - got 206" in heard.notes[0]


def test_a_length_that_is_too_long(get, tmp_path):
    heard = Heard()
    assert get(lie(1000), progress=heard) == BODY
    assert "the connection was cut - got fewer bytes than announced" in heard.notes[0]
    (tmp_path / "small" / NAME).unlink()
    with pytest.raises(DataError, match=r"fewer bytes than announced .* gave up after 4 attempts"):
        get(*[lie(1000)] * 9, ranges=False)


def test_a_length_that_is_too_short(get, tmp_path):
    short = lie(-1000)
    heard = Heard()
    assert get(short, progress=heard) == BODY
    assert "the file is cut off - got" in heard.notes[0]
    (tmp_path / "small" / NAME).unlink()
    with pytest.raises(DataError, match=r"cut off .* expected } or ]"):
        get(short, short)


def test_a_length_that_is_too_short_against_a_checksum(server, tmp_path):
    url = server.add("/rows.jsonl", BODY, faults=[lie(-1000)])
    heard = Heard()
    fetch(spec(source(url, sha256=sha256(BODY))), tmp_path, options=quick(), progress=heard)
    assert "what was fetched is not the right file - got sha256" in heard.notes[0]


def test_a_part_with_more_or_less_than_announced(get, tmp_path):
    """Content-Range and Content-Length of one answer disagree."""
    size, heard = len(BODY), Heard()
    wrong = with_headers(Content_Range=f"bytes 5000-{size - 11}/{size - 10}")
    assert get(chunked(cut_at=5000), wrong, progress=heard) == BODY
    expected = f"the length is not the one announced - got {size:,} bytes at http"
    assert heard.notes[1].startswith(expected) and f"expected {size - 10:,}" in heard.notes[1]
    (tmp_path / "small" / NAME).unlink()
    heard = Heard()
    assert get(cut(1000), lie(-100), progress=heard) == BODY
    assert f"announced - got {size - 100:,} bytes" in heard.notes[1]


def test_chunked_answers_have_no_length(get, tmp_path):
    heard = Heard()
    assert get(chunked(), progress=heard) == BODY
    assert heard.notes == [] and all(total is None for _, _, total, _ in heard.updates)
    (tmp_path / "small" / NAME).unlink()
    assert get(chunked(cut_at=5000)) == BODY


def test_a_connection_that_is_hung_up(get):
    heard = Heard()
    assert get(hang_up, hang_up, progress=heard) == BODY
    assert "no connection - got" in heard.notes[0]


@pytest.mark.parametrize("fault", [drip(0.01), stall(3), stall(3, after=700)])
def test_a_server_that_is_too_slow(get, fault):
    heard = Heard()
    options = quick(timeout_s=0.4, min_rate=1e6 if fault.__qualname__.startswith("drip") else 1)
    assert get(fault, progress=heard, options=options) == BODY
    assert any(w in heard.notes[0] for w in ("all but stopped", "no answer for 0.4 s"))


def test_a_drip_says_what_was_expected(get):
    heard = Heard()
    get(drip(0.01), progress=heard, options=quick(timeout_s=0.3))
    assert "the server all but stopped - got" in heard.notes[0]
    assert "expected 500 bytes a second" in heard.notes[0]


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_errors_that_pass(get, code):
    heard = Heard()
    assert get(status(code, {"Retry-After": "0"}), status(code), progress=heard) == BODY
    assert f"the server is busy or broken - got {code}" in heard.notes[0]
    assert "trying again in" in heard.notes[0] and "(1/3)" in heard.notes[0]


def test_retry_after_is_obeyed(get, server):
    begun = time.monotonic()
    assert get(status(429, {"Retry-After": "1"})) == BODY
    assert time.monotonic() - begun >= 1
    server.files.clear()


def test_waits_grow_and_have_a_cap(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr("threading.Event.wait", lambda _, seconds: slept.append(seconds))
    options = quick(backoff_s=1.0, backoff_cap_s=5.0, retries=5)
    url = "http://127.0.0.1:9/x.jsonl"
    part, origin = Unfinished(tmp_path, "group", url), Origin(url, None, (source(url),))
    with pytest.raises(DataError, match=r"no connection - got connection refused .* 6 attempts"):
        transfer(part, origin, options=options)
    caps = [1, 2, 4, 5, 5]
    assert all(0.75 * cap <= s <= cap for s, cap in zip(slept, caps, strict=True))


def test_progress_starts_the_retries_anew(server, tmp_path):
    body = rows(60_000)
    assert len(body) > 4 << 20
    faults = [cut(1_100_000)] * 3 + [cut(0)]
    url = server.add("/rows.jsonl", body, faults=faults)
    folder = fetch(spec(source(url)), tmp_path, options=quick(retries=2))
    assert (folder / NAME).read_bytes() == body


def test_a_page_does_not_replace_what_came_of_a_mirror(server, tmp_path):
    first = server.add("/a", BODY, faults=[page()])
    second = server.add("/b", BODY)
    heard = Heard()
    folder = fetch(
        spec(source(first, mirrors=(second,))), tmp_path, options=quick(), progress=heard
    )
    assert (folder / NAME).read_bytes() == BODY
    assert "web page" in heard.notes[0] and "'Please log in'" in heard.notes[0]


def test_no_mirror_serves_it(server, tmp_path):
    gone, refused = server.url("/gone"), "http://127.0.0.1:9/x"
    heard = Heard()
    with pytest.raises(
        DataError,
        match=r"1 files could not be fetched:\n  small/rows.jsonl: no address served it - got "
        r"\(1\) the file is gone - got 404 Not Found at http.*/gone; \(2\) no connection - got "
        r"connection refused at http://127.0.0.1:9/x - gave up after 1 attempts"
        r" - by hand:\n  small: ask the authors",
    ):
        fetch(
            spec(source(gone, mirrors=(refused,), manual="ask the authors")),
            tmp_path,
            options=quick(retries=0),
            progress=heard,
        )
    assert len(heard.notes) == 1
    assert heard.notes[0].endswith("/gone - trying the next address")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_version_is_begun_anew(server, tmp_path):
    url = server.add("/rows.jsonl", BODY, faults=[cut(1000)])
    with pytest.raises(DataError):
        fetch(spec(source(url)), tmp_path, options=quick(retries=0))
    next((tmp_path / "small" / ".download").glob("*.json")).write_text("[]")
    fetch(spec(source(url)), tmp_path, options=quick())
    assert "Range" not in server.gets("/rows.jsonl")[-1]


def test_stopping(server, tmp_path):
    options = quick()
    options.stop.set()
    url = server.add("/rows.jsonl", BODY)
    (result,) = fetch_all(plan([spec(source(url))], tmp_path), options=options)
    assert "interrupted - run it again: it goes on where it stopped" in str(result.error)


@pytest.fixture
def keys_interrupt():
    """Ctrl-C raises, as at a keyboard; what a shell runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("keys_interrupt")
def test_a_key_press_leaves_at_once(server, tmp_path):
    class Press(Heard):
        def update(self, *_):
            _thread.interrupt_main()

    url = server.add("/rows.jsonl", BODY)
    options = quick()
    with pytest.raises(KeyboardInterrupt):
        fetch(spec(source(url)), tmp_path, options=options, progress=Press())
    assert options.stop.is_set()


def test_progress_is_told(get):
    heard = Heard()
    get(progress=heard)
    assert heard.finished == ["small/rows.jsonl"]
    assert {u[3] for u in heard.updates} == {"fetching"}
    assert heard.updates[0][2] == len(BODY)
