import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_jax.checkpoint.checksums import file_checksum
from tulu_jax.checkpoint.hf import safetensors_io
from tulu_jax.checkpoint.hf.files import find_tensors, misplaced
from tulu_jax.checkpoint.hf.safetensors_io import (
    INDEX_NAME,
    SINGLE_NAME,
    Shard,
    plan_shards,
    read_header,
    write_shard,
)
from tulu_jax.checkpoint.hf.tensors import read_tensor
from tulu_jax.errors import CheckpointError

from .small import read_tensors, write_raw, write_tensors

F32 = np.dtype(np.float32)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(**entries):
    return json.dumps(entries).encode()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_what_is_written_is_read_by_us_and_by_the_reference(tmp_path, dtype):
    rng = np.random.default_rng(0)
    tensors = {"a": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=5).astype(dtype)}
    shard = Shard("x.safetensors", {name: tensor.shape for name, tensor in tensors.items()})
    path = tmp_path / shard.name
    checksum = write_shard(path, shard, np.dtype(dtype), iter(tensors.items()))
    assert checksum == file_checksum(path)
    specs = read_header(path)
    for name, tensor in tensors.items():
        assert np.array_equal(read_tensor(specs[name]), tensor)
        assert np.array_equal(read_tensors(path)[name], tensor)


def test_views_of_any_order_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_io, "PIECE_BYTES", 100)
    monkeypatch.setattr(safetensors_io, "PIECE_ROWS", 3)
    rng = np.random.default_rng(0)
    tensors = {
        "turned": rng.normal(size=(5, 41)).astype(np.float32).T,
        "of another dtype": rng.normal(size=(7, 2, 3)),
        "one number": np.float32(3).reshape(()),
        "nothing": np.zeros((0, 4), np.float32),
        "nothing either": np.zeros((4, 0), np.float32),
        "long": np.arange(70, dtype=np.float32),
    }
    shard = Shard("x.safetensors", {name: tensor.shape for name, tensor in tensors.items()})
    checksum = write_shard(tmp_path / shard.name, shard, F32, iter(tensors.items()))
    assert checksum == file_checksum(tmp_path / shard.name)
    found = read_tensors(tmp_path / shard.name)
    for name, tensor in tensors.items():
        assert np.array_equal(found[name], tensor.astype(np.float32)), name
    assert read_header(tmp_path / shard.name)["turned"].start == safetensors_io.ALIGNMENT


def test_a_tensor_that_was_not_planned_is_an_error(tmp_path):
    shard = Shard("x.safetensors", {"a": (2,)})
    for wrong in ({"b": np.zeros(2)}, {"a": np.zeros(3)}, {}, {"a": np.zeros(2), "b": np.zeros(2)}):
        with pytest.raises(ValueError, match=r"was planned|zip\(\)"):
            write_shard(tmp_path / "x", shard, F32, iter(wrong.items()))


def test_what_the_reference_writes_is_read(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([7])}
    write_tensors(tmp_path / "x.safetensors", tensors)
    specs = read_header(tmp_path / "x.safetensors")
    assert {name: read_tensor(spec).tolist() for name, spec in specs.items()} == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "b": [7],
    }


def test_shards_of_the_docstring():
    shapes = {"a": (10,), "b": (10,), "c": (30,)}
    shards = plan_shards({"a": (10,), "b": (10,), "c": (7,)}, F32, 80)
    assert [list(shard.tensors) for shard in shards] == [["a", "b"], ["c"]]
    assert [shard.name for shard in plan_shards(shapes, F32, 80)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert plan_shards(shapes, F32, 10**9)[0].name == SINGLE_NAME


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 300))
def test_shards_hold_every_tensor_once_in_order(sizes, limit):
    shapes = {f"t{i}": (size,) for i, size in enumerate(sizes)}
    shards = plan_shards(shapes, F32, limit)
    assert [name for shard in shards for name in shard.tensors] == list(shapes)
    for shard in shards:
        assert len(shard.tensors) == 1 or sum(4 * s[0] for s in shard.tensors.values()) <= limit


@pytest.mark.parametrize(
    ("raw", "length", "data", "message"),
    [
        (b"", 2**60, b"", "header too large"),
        (b"", 2**20, b"", "invalid header length"),
        (b"garbage!", None, b"", "invalid JSON in header"),
        (b"[1, 2]", None, b"", "invalid JSON in header: invalid type: sequence"),
        (header(a=entry()), None, b"1234567", "incomplete metadata, file not fully covered"),
        (header(a=entry()), None, b"123456789", "incomplete metadata, file not fully covered"),
        (header(a=entry(shape=(3,))), None, b"12345678", "invalid shape, data type, or offset"),
        (header(a=entry(shape=(2**60, 2**60))), None, b"12345678", "overflow computing buffer"),
        (header(a=entry(shape=(-2,))), None, b"12345678", "invalid value: integer `-2`"),
        (header(a=entry(dtype="F31")), None, b"12345678", "unknown variant `F31`"),
        (header(a=entry(offsets=(8, 0))), None, b"12345678", "invalid"),
        (header(a=entry(offsets=(0, 2**61))), None, b"12345678", "invalid"),
        (header(a=entry(), b=entry()), None, b"12345678", "invalid offset for tensor `[ab]`"),
        (header(a=entry(offsets=(8, 16))), None, b"0" * 16, "invalid offset for tensor `a`"),
        (header(a=3), None, b"12345678", "invalid JSON in header"),
        (b'{"a": {}, "a": {}}', None, b"", "invalid JSON in header"),
        (b"[" * 100_000, None, b"", "invalid JSON in header"),
    ],
)  # fmt: skip
def test_bad_headers(tmp_path, raw, length, data, message):
    write_raw(tmp_path / "x.safetensors", raw, data, length)
    expected = f"safetensors file is truncated or damaged - got .*{message}.* - download or copy"
    with pytest.raises(CheckpointError, match=expected):
        read_header(tmp_path / "x.safetensors")


def test_files_shorter_than_a_length(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"123")
    with pytest.raises(CheckpointError, match="truncated or damaged - got header too small"):
        read_header(tmp_path / "x.safetensors")


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        assert not read_header(path)  # only an empty header is good
        raise CheckpointError("empty")


def test_dtypes_that_are_no_weights(tmp_path):
    write_raw(tmp_path / "x.safetensors", header(a=entry(dtype="I8", shape=(8,))), b"12345678")
    spec = read_header(tmp_path / "x.safetensors")["a"]
    with pytest.raises(CheckpointError, match="dtype that is not supported - got I8"):
        read_tensor(spec)


def test_tensors_of_less_than_a_byte_a_number(tmp_path):
    write_raw(tmp_path / "x.safetensors", header(a=entry(dtype="F4", shape=(16,))), b"12345678")
    with pytest.raises(CheckpointError, match="dtype that is not supported - got a of F4"):
        read_header(tmp_path / "x.safetensors")


def test_file_that_shrinks_between_header_and_read(tmp_path):
    write_raw(tmp_path / "x.safetensors", header(a=entry()), b"12345678")
    spec = read_header(tmp_path / "x.safetensors")["a"]
    write_raw(tmp_path / "x.safetensors", header(a=entry()), b"1234")
    with pytest.raises(CheckpointError, match="shrank"):
        read_tensor(spec)


@pytest.fixture
def sharded(tmp_path):
    for name in "ab":
        write_tensors(tmp_path / f"{name}.safetensors", {name: np.zeros(2, np.float32)})
    write_index(tmp_path, a="a.safetensors", b="b.safetensors")
    return tmp_path


def write_index(folder, **weight_map):
    (folder / INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_found_by_the_index(sharded):
    assert {name: spec.file.name for name, spec in find_tensors(sharded).items()} == {
        "a": "a.safetensors",
        "b": "b.safetensors",
    }


def test_shards_with_each_others_names_are_said(sharded):
    """They were read without a word, each tensor from where it lies."""
    assert misplaced(sharded, find_tensors(sharded)) == []
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        (sharded / f"{old}.safetensors").rename(sharded / f"{new}.safetensors")
    assert misplaced(sharded, find_tensors(sharded)) == [
        "2 tensors are in other shards than model.safetensors.index.json names: a lies in "
        "b.safetensors, not in a.safetensors"
    ]


def test_index_names_a_missing_shard(sharded):
    (sharded / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a shard is missing - got no b.safetensors"):
        find_tensors(sharded)


@pytest.mark.parametrize(
    "file",
    ["../b.safetensors", "/etc/b.safetensors", "x/b.safetensors", "..\\b.safetensors", "b.bin",
     "\0.safetensors", 7],
)  # fmt: skip
def test_index_must_stay_in_its_folder(sharded, file):
    write_index(sharded, a="a.safetensors", b=file)
    with pytest.raises(CheckpointError, match="index names a file outside its folder"):
        find_tensors(sharded)


def test_other_bad_folders(sharded):
    write_index(sharded, a="a.safetensors", c="b.safetensors")
    with pytest.raises(CheckpointError, match=r"tensors are missing - got \['c'\] in no shard"):
        find_tensors(sharded)
    write_tensors(sharded / "b.safetensors", {"a": np.zeros(2, np.float32)})
    write_index(sharded, a="a.safetensors", b="b.safetensors")
    with pytest.raises(
        CheckpointError, match=r"tensor is there twice - got a in a.safetensors and b"
    ):
        find_tensors(sharded)
    (sharded / INDEX_NAME).write_text("{}")
    with pytest.raises(CheckpointError, match="index is malformed"):
        find_tensors(sharded)
    (sharded / SINGLE_NAME).touch()
    with pytest.raises(CheckpointError, match="folder holds two sets of weights"):
        find_tensors(sharded)


def test_folders_without_weights_say_what_they_hold(tmp_path):
    (tmp_path / "model.gguf").touch()
    with pytest.raises(
        CheckpointError,
        match=r"weights of a model, but a GGUF file .*\['model.gguf'\].*model.safe",
    ):
        find_tensors(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    (tmp_path / "model.gguf").unlink()
    with pytest.raises(CheckpointError, match=r"index of these parts too: model.safetensors.index"):
        find_tensors(tmp_path)
    (tmp_path / "params.json").touch()
    with pytest.raises(CheckpointError, match=r"but a model in Meta's layout .* tulu import --me"):
        find_tensors(tmp_path)


def test_links_out_of_the_folder_are_refused_but_not_those_of_the_hub_cache(tmp_path):
    snapshot = tmp_path / "models--a" / "snapshots" / "1"
    blobs = tmp_path / "models--a" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    write_tensors(blobs / "0f", {"a": np.zeros(2, np.float32)})
    (snapshot / "a.safetensors").symlink_to("../../blobs/0f")
    write_index(snapshot, a="a.safetensors")
    assert list(find_tensors(snapshot)) == ["a"]
    (snapshot / "a.safetensors").unlink()
    write_tensors(tmp_path / "secret", {"a": np.zeros(2, np.float32)})
    (snapshot / "a.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="index names a file outside its folder"):
        find_tensors(snapshot)
