"""A disk that is full or cannot be written: said in words, with nothing lost."""

import resource
from collections import namedtuple

import pytest

from tests.download.download_fixtures import BODY, NAME, quick, source, spec
from tulu_jax.download.run import fetch
from tulu_jax.errors import DataError


def test_too_little_room_is_seen_before_fetching(server, tmp_path, monkeypatch):
    url = server.add("/rows.jsonl", BODY)
    usage = namedtuple("usage", "total used free")(10, 5, 5)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: usage)
        with pytest.raises(
            DataError,
            match=rf"the disk is full - got 5 bytes free, {len(BODY):,} more to fetch at .*small.*"
            r" - free some space and run it again: what was fetched is kept",
        ):
            fetch(spec(source(url)), tmp_path, options=quick())
    assert (fetch(spec(source(url)), tmp_path, options=quick()) / NAME).read_bytes() == BODY


def test_the_disk_fills_up_meanwhile(server, tmp_path):
    """A limit on the size of files stands for it: the kernel refuses the write just so."""
    url = server.add("/rows.jsonl", BODY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DataError, match=r"the disk is full - got file too large"):
            fetch(spec(source(url)), tmp_path, options=quick())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    part = next((tmp_path / "small" / ".download").glob("*.part"))
    assert part.read_bytes() == BODY[:50_000]
    assert (fetch(spec(source(url)), tmp_path, options=quick()) / NAME).read_bytes() == BODY
    assert server.gets("/rows.jsonl")[-1]["Range"] == "bytes=50000-"


def test_a_folder_that_is_a_file(server, tmp_path):
    (tmp_path / "small").write_text("")
    url = server.add("/rows.jsonl", BODY)
    with pytest.raises(DataError, match=r"cannot read or write - got .* a folder that can be"):
        fetch(spec(source(url)), tmp_path, options=quick())
