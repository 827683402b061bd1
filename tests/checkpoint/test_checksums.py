"""`checksums.json`: what is written, what is compared, what is refused."""

import hashlib
import json
import mmap
import threading

import pytest
import xxhash

from tulu_jax.checkpoint import checksums
from tulu_jax.checkpoint.checksums import file_checksum, verify_checksums, write_checksums
from tulu_jax.errors import CheckpointError

SHA256 = {"a": hashlib.sha256(b"one").hexdigest()}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    return tmp_path


def write_list(folder, value):
    (folder / "checksums.json").write_text(json.dumps(value))


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 9999])
def test_checksum_of_a_file_of_any_size(tmp_path, monkeypatch, size):
    monkeypatch.setattr(checksums, "BLOCK_BYTES", mmap.ALLOCATIONGRANULARITY)
    content = bytes(range(256)) * 64
    (tmp_path / "x").write_bytes(content[:size])
    assert file_checksum(tmp_path / "x") == xxhash.xxh3_128(content[:size]).hexdigest()
    wanted = hashlib.sha256(content[:size]).hexdigest()
    assert file_checksum(tmp_path / "x", "sha256") == wanted


def test_it_stops_when_told(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(bytes(1000))
    stop = threading.Event()
    stop.set()
    assert file_checksum(tmp_path / "x", stop=stop) == xxhash.xxh3_128().hexdigest()


def test_the_list_says_its_algorithm(folder):
    path = write_checksums(folder, {"a": file_checksum(folder / "a")})
    wanted = {"algorithm": "xxh128", "files": {"a": xxhash.xxh3_128(b"one").hexdigest()}}
    assert json.loads(path.read_text()) == wanted
    assert verify_checksums(folder) == 1


@pytest.mark.parametrize("said", [{"algorithm": "sha256"}, {}])
def test_lists_of_older_versions_are_compared(folder, said):
    write_list(folder, {**said, "files": SHA256})
    assert verify_checksums(folder) == 1
    (folder / "a").write_bytes(b"two")
    with pytest.raises(CheckpointError, match=r"a missing or changed .* expected the sha256 that"):
        verify_checksums(folder)


def test_a_file_that_is_missing(folder):
    write_checksums(folder, {"a": file_checksum(folder / "a"), "b": "00"})
    with pytest.raises(CheckpointError, match=r"b missing or changed .* the xxh128 that"):
        verify_checksums(folder)


@pytest.mark.parametrize("name", ["crc32", "", None, 7, ["sha256"]])
def test_an_algorithm_that_is_not_known(folder, name):
    write_list(folder, {"algorithm": name, "files": SHA256})
    with pytest.raises(CheckpointError, match=r"algorithm that is not known .* xxh128 or sha256"):
        verify_checksums(folder)


@pytest.mark.parametrize(
    "value", [[], {}, {"files": []}, {"files": {"a": 1}}, {"files": {"../a": "0"}}]
)
def test_a_malformed_list(folder, value):
    write_list(folder, value)
    with pytest.raises(CheckpointError, match=r"checksums\.json is (malformed|not a JSON object)"):
        verify_checksums(folder)


def test_an_unreadable_list(folder):
    assert verify_checksums(folder) is None
    (folder / "checksums.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"checksums\.json is not a JSON object .* --skip_checksums"
    ):
        verify_checksums(folder)
