"""Paths as users write them, and files by their first bytes."""

import base64
import gzip
import os
from pathlib import Path

import pytest

from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import (
    RepeatedField,
    each_once,
    file_sha256,
    json_or_none,
    json_sha256,
    kind_of,
    kind_of_file,
    parse_json,
    read_json,
    real_path,
    sha256,
    user_path,
    whole_file,
    write_whole,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("run", "run"),
        ("./run", "run"),
        ("run/", "run"),
        ("run//", "run"),
        ("a/../run", "run"),
        ("~/run", "home/run"),
        ("mein ordner/größe, 1.jsonl", "mein ordner/größe, 1.jsonl"),
        ("run[1]/{x}*?", "run[1]/{x}*?"),
        (" run ", " run "),
        ("run:1", "run:1"),
        ("costs $5/a$/$", "costs $5/a$/$"),
    ],
)
def test_a_path_is_what_its_user_means(here, given, meant):
    assert user_path(given) == here / meant
    assert user_path(Path(given)) == here / meant


def test_steps_up_go_by_the_folder_that_a_link_leads_to(here):
    (here / "far" / "deep").mkdir(parents=True)
    os.symlink(here / "far" / "deep", here / "link")
    assert user_path("link/../x") == here / "far" / "x"
    assert user_path("link/x") == here / "link" / "x"


@pytest.mark.parametrize("given", ["", "  ", "a\0b"])
def test_a_path_that_names_nothing_is_refused(given):
    with pytest.raises(ConfigError, match="MODEL_DIR names no file or folder - got"):
        user_path(given, name="MODEL_DIR")


@pytest.mark.parametrize(
    ("given", "do"),
    [
        ("gs://bucket/run", "mount the storage, or copy"),
        ("s3://b/k", "mount the storage, or copy"),
        ("gs:/bucket/run", "mount the storage, or copy"),
        ("file:///x", "write the path alone"),
        ("HTTPS://host/x.jsonl", "download it, and name the file"),
    ],
)
def test_an_address_makes_no_local_folder(given, do):
    words = "is an address, not a path of this machine - got .* - "
    with pytest.raises(ConfigError, match=words + do):
        user_path(given)


@pytest.mark.parametrize(
    "given", ["$HOME/run", "${HOME}/run", "/data/$USER/x", "a/$NOT_SET", "$A.b"]
)
def test_a_variable_that_no_shell_replaced_makes_no_folder(here, given):
    words = (
        r"path holds a variable that no shell has replaced - got .* expected what \$.* stands for"
    )
    with pytest.raises(ConfigError, match=words):
        user_path(given)


def test_a_folder_may_have_the_name_of_a_variable(here):
    (here / "$HOME").mkdir()
    assert user_path("$HOME/run") == here / "$HOME" / "run"


def test_a_home_that_is_not_known_is_refused(here):
    with pytest.raises(ConfigError, match="starts with ~ and that home folder is not known"):
        user_path("~nobody_of_that_name/x")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "an empty file"),
        (gzip.compress(b"x", mtime=0), "a gzip file"),
        (b"\xef\xbb\xbf <html>", "a web page"),
        ("x".encode("utf-16"), "UTF-16 text"),
        (base64.b64encode(b"!") + b" 0\n" + base64.b64encode(b'"') + b" 1\n", "a tiktoken"),
        (b"PAR1", "a Parquet file"),
    ],
)
def test_first_bytes_tell_what_a_file_is(head, kind, tmp_path):
    (tmp_path / "file").write_bytes(head)
    assert (kind_of_file(tmp_path / "file") or "").startswith(kind)


@pytest.mark.parametrize("head", [b"{", b'[{"a"', b"\x0a\x0b\x0a", b"text 1\nmore"])
def test_what_is_not_recognised_has_no_kind(head):
    assert kind_of(head) is None


def test_a_loop_of_links_has_a_path_too(tmp_path):
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    os.symlink(tmp_path / "far", tmp_path / "link")
    assert real_path(tmp_path / "loop" / "x") == tmp_path / "loop" / "x"
    assert real_path(tmp_path / "link" / "x") == tmp_path / "far" / "x"


def test_a_field_that_is_there_twice_is_named():
    assert each_once([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    assert each_once([("a", 1), ("a", 1)], same=True) == {"a": 1}
    for pairs, same in (([("b", 0), ("a", 1), ("a", 1)], False), ([("a", 1), ("a", 2)], True)):
        with pytest.raises(RepeatedField, match=r"^a$"):
            each_once(pairs, same=same)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "invalid start byte"),
        ("{", "Expecting property name"),
        ('{"a": 1, "a": 1}', "^the field a twice$"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_with_json_is_said(text, words):
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    assert parse_json(b'\xef\xbb\xbf{"a": [1]}') == {"a": [1]}
    assert parse_json('{"a": 1, "a": 1}', same=True) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "x.json is missing - at .* - expected a folder of mine - name it"),
        (b"", "not a JSON object - got an empty file at .*x.json - expected an object.* - mend it"),
        (b"<html>", r"got a web page \(HTML\) at .* - download the file itself"),
        (b"[1]", "not a JSON object - got a JSON list at"),
        (b'{"a": 1, "a": 2}', "got the field a twice with two values at .* - mend it$"),
    ],
)
def test_a_file_that_is_no_json_object_is_named(tmp_path, content, words):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_json(path, DataError, expected="a folder of mine", do="name it", mend="mend it")
    if content != b"[1]":
        assert json_or_none(path) in (None, {"a": 2})


def test_a_json_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(DataError, match=r"x\.json cannot be read - got Is a directory at"):
        read_json(tmp_path / "x.json", DataError)


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new" / "x"
    write_whole(path, "first\n")
    with pytest.raises(KeyboardInterrupt), whole_file(path, "wb", durable=True) as stream:
        stream.write(b"second")
        stream.flush()
        assert path.read_text() == "first\n"
        raise KeyboardInterrupt
    assert path.read_text() == "first\n" and os.listdir(path.parent) == ["x"]
    before = os.umask(0o027)
    try:
        write_whole(path, b"second", durable=True)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"second" and path.stat().st_mode & 0o777 == 0o640


def test_checksums_are_those_of_the_content(tmp_path):
    (tmp_path / "x").write_text("größe")
    assert sha256("größe") == sha256("größe".encode()) == file_sha256(tmp_path / "x")
    assert sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert json_sha256({"b": tmp_path, "a": 1}) == json_sha256({"a": 1, "b": str(tmp_path)})
