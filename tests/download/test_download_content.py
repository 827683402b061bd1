"""Content that is another file than the one wanted is refused."""

import pytest

from tests.download.download_fixtures import (
    quick,
    source,
    spec,
    tree,
)
from tulu_jax.download.run import fetch
from tulu_jax.errors import DataError


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.json", b"", r"the file is empty - got 0 bytes"),
        ("a.json", b" \n ", r"the file is empty - got blanks"),
        ("a.json", b"<html><title>Moved &amp;\n gone</title>",
         r"the answer is a web page, not the file - got 'Moved & gone' at http.* - expected JSON - "
         r"open the address"),
        ("a.jsonl", b"\n\n<!DOCTYPE HTML>nope", r"web page.* got '<!DOCTYPE HTML>nope'"),
        ("a.txt", b"<?xml version='1'?><Error>", r"web page.* expected the content of a.txt"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1\noid 1", r"a Git LFS pointer"),
        ("a.jsonl", b"Not Found", r"another kind of file - got b'Not Found'.*expected JSON lines"),
        ("a.parquet", b"{}", r"another kind of file .* expected a Parquet file"),
        ("a.json", b'[{"a": 1}, {"a"', r"cut off - got '.*' at its end .* expected ] or }"),
        ("a.jsonl", b'{"a": 1}\n{"a": {"b": 2', r"cut off .* expected } or ]"),
        ("a.xlsx", b"{}", r"another kind of file .* expected an Excel file"),
        ("a.parquet", b"PAR1....", r"cut off .* expected PAR1"),
    ],
)  # fmt: skip
def test_content_that_is_not_the_file(server, tmp_path, name, body, message):
    url = server.add("/x", body)
    with pytest.raises(DataError, match=message):
        fetch(spec(source(url, name)), tmp_path, options=quick())
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.json", b'\xef\xbb\xbf[{"a": 1}]\n'),
        ("a.json", b'{"a": 1}\n{"a": 2}\n'),
        ("a.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 300_000 + b'"}\n\n'),
        ("a.jsonl", b"[" * 100_000 + b"]" * 100_000),
        ("a.tsv", b"question\tanswer\n"),
        ("a.parquet", b"PAR1....PAR1"),
    ],
)
def test_content_that_passes(server, tmp_path, name, body):
    url = server.add("/x", body)
    fetch(spec(source(url, name)), tmp_path, options=quick())
    assert (tmp_path / "small" / name).read_bytes() == body
