"""What is there already: kept, held to its record, fetched by one process at a time."""

import json
import threading

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
    stall,
    status,
)
from tulu_jax.download.run import fetch, fetch_all, raise_failures
from tulu_jax.download.sources import plan
from tulu_jax.errors import DataError


def test_a_file_and_its_record(get, tmp_path, server):
    assert get() == BODY
    record = json.loads((tmp_path / "small" / "checksums.json").read_text())
    expected = {"sha256": sha256(BODY), "bytes": len(BODY), "from": server.url("/rows.jsonl")}
    assert record == {NAME: expected}
    before = len(server.seen)
    assert get() == BODY
    assert len(server.seen) == before  # what is there is verified, not asked for


def test_a_folder_that_is_filled_by_hand(tmp_path):
    own = spec(source("", ".", manual="put files into a folder"))
    with pytest.raises(
        DataError, match=r"the files of dataset small are put there by hand .* put files into a"
    ):
        fetch(own, tmp_path)
    (tmp_path / "small").mkdir()
    assert fetch(own, tmp_path) == tmp_path / "small"


def test_no_address_at_all(tmp_path):
    with pytest.raises(
        DataError, match=r"(?s)no address serves it any more - at .*ask the authors"
    ):
        fetch(spec(source("", manual="ask the authors")), tmp_path, options=quick())
    with pytest.raises(DataError, match=r"put the file there by hand, or name a mirror"):
        fetch(spec(source("")), tmp_path, options=quick())


def test_other_files_are_kept_when_one_fails(server, tmp_path):
    urls = [server.add(f"/{n}", BODY) for n in "abc"]
    server.files["/b"].faults = [status(404)]
    specs = [spec(source(url), name=f"set{n}") for n, url in enumerate(urls)]
    results = fetch_all(plan(specs, tmp_path), options=quick(jobs=2))
    assert [r.status for r in results] == ["fetched", "failed", "fetched"]
    assert tree(tmp_path).keys() >= {"set0/rows.jsonl", "set2/rows.jsonl"}
    with pytest.raises(DataError, match=r"1 files could not be fetched:\n  set1/rows.jsonl"):
        raise_failures(results)


def test_files_that_are_there(server, tmp_path):
    """Kept; verified by the source's checksum or the record, if there is one."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / NAME).write_bytes(BODY)

    def state(**more):
        (result,) = fetch_all(plan([spec(source("http://127.0.0.1:9/", **more))], tmp_path))
        return result.status if result.error is None else str(result.error)

    assert state() == "there, not checked"
    assert state(sha256=sha256(BODY)) == "there, verified"
    wrong = state(sha256="0" * 64)
    assert wrong.startswith("a raw file is not the right one - got sha256 ")
    assert "expected 000" in wrong and "delete it to fetch it again" in wrong
    assert tree(folder).keys() == {NAME}
    (folder / NAME).write_bytes(b"<html>")
    assert state().startswith("what lies there is a web page, not the file - got ")
    assert state().endswith("put the right file there, or delete it to fetch it")
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1", "what lies there is a Git LFS pointer"),
        (b"\x1f\x8b", "what lies there is another kind of file - got a gzip file"),
        (b"", "the file is empty - got 0 bytes"),
    ):
        (folder / NAME).write_bytes(content)
        assert state().startswith(words) and "delete it to fetch it" in state()


def test_a_file_that_changed_since_it_was_fetched(get, tmp_path):
    get()
    path = tmp_path / "small" / NAME
    path.write_bytes(BODY[:-1])
    with pytest.raises(
        DataError, match=r"a raw file is not what was fetched .* its entry in check"
    ):
        get()
    assert path.read_bytes() == BODY[:-1]


def test_an_upstream_file_that_changed(get, tmp_path):
    get()
    (tmp_path / "small" / NAME).unlink()
    with pytest.raises(DataError, match=r"has changed since it was first .* delete its entry"):
        get(body=rows(seed=1))
    assert get() == BODY


def test_a_damaged_record(get, tmp_path):
    get()
    (tmp_path / "small" / "checksums.json").write_text("{")
    with pytest.raises(DataError, match=r"the record of what was fetched is damaged .* delete it"):
        get()


def test_one_address_is_fetched_by_one_at_a_time(server, tmp_path):
    url = server.add("/rows.jsonl", BODY, faults=[stall(0.5, after=5000)])
    heard = [Heard() for _ in range(3)]

    def run(progress):
        fetch(spec(source(url)), tmp_path, options=quick(timeout_s=0.2), progress=progress)

    threads = [threading.Thread(target=run, args=(h,)) for h in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(server.gets("/rows.jsonl")) == 2
    assert tree(tmp_path / "small").keys() == {NAME, "checksums.json"}
    waiting = [h for h in heard if "waiting: another process is fetching it" in h.notes]
    assert len(waiting) == 2


def test_no_locks_on_the_file_system(get, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(DataError, match=r"the file system has no locks .* --raw_dir"):
        get()
