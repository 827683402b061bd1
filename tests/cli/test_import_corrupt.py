"""`tulu import` of folders that are damaged or meant to do harm: refused, and nothing is made."""

import json
import os
import shutil
import struct
import tracemalloc

import numpy as np
import pytest

from tulu_jax.errors import CheckpointError

from .small_model import tulu, write_model

NORM = "model.norm.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of several shards, without checksums: the reader itself must see the damage."""
    folder = write_model(tmp_path_factory.mktemp("good") / "one")
    tensors = {}
    from safetensors.numpy import load_file, save_file

    for name, tensor in load_file(folder / "model.safetensors").items():
        tensors[name] = tensor
    (folder / "model.safetensors").unlink()
    (folder / "checksums.json").unlink()
    weight_map = {}
    for number, name in enumerate(sorted(tensors)):
        file = f"model-{number % 3}.safetensors"
        weight_map[name] = file
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "hf")


def refused(folder, match):
    """Imports; it must be refused with a message, with little memory and without a trace."""
    run = folder.parent / "run"
    before = sorted(path.name for path in folder.parent.iterdir())
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=match):
            tulu("import", "--hf", folder, "--model_dir", run)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
    assert sorted(path.name for path in folder.parent.iterdir()) == before


def test_the_good_folder_is_good(folder):
    assert tulu("import", "--hf", folder, "--model_dir", folder.parent / "run") == 0


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.999])
def test_each_file_cut_short(folder, number, left):
    file = folder / f"model-{number}.safetensors"
    file.write_bytes(file.read_bytes()[: int(left * file.stat().st_size)])
    refused(folder, r"truncated|claims more bytes than there are")


def header_of(file):
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(file, header, data, length=None):
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def test_bits_of_a_header_flipped(folder):
    file = folder / "model-1.safetensors"
    raw = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    for place in [*range(8), *range(9, 8 + length, 29)]:
        raw[place] ^= 0x04
        file.write_bytes(raw)
        raw[place] ^= 0x04
        refused(folder, ".")


@pytest.mark.parametrize("claim", [2**60, 2**63, 2**64 - 1])
def test_a_header_that_claims_to_be_huge(folder, claim):
    file = folder / "model-0.safetensors"
    write(file, *header_of(file), length=claim)
    refused(folder, "truncated or damaged - got header too large")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [2**60], "data_offsets": [0, 2**62]}, "truncated|malformed|overlap"),
        ({"shape": [8, 2]}, r"model.norm.weight \[8, 2\]"),
        ({"dtype": "I32"}, "dtype that is not supported - got model.norm.weight in I32"),
        ({"dtype": "F16"}, "invalid shape, data type, or offset for tensor"),
        ({"data_offsets": [4, 68]}, "invalid offset for tensor `"),
    ],
)
def test_a_tensor_that_is_not_what_it_should_be(folder, change, message):
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    file = folder / index[NORM]
    header, data = header_of(file)
    header[NORM].update(change)
    write(file, header, data)
    refused(folder, message)


def edit_index(folder, change):
    value = json.loads((folder / INDEX).read_text())
    change(value["weight_map"])
    (folder / INDEX).write_text(json.dumps(value))


def test_a_shard_that_is_not_there(folder):
    (folder / "model-2.safetensors").unlink()
    refused(folder, "a shard is missing")


def test_an_index_that_points_nowhere(folder):
    edit_index(folder, lambda names: names.update({NORM: "model-9.safetensors"}))
    refused(folder, r"a shard is missing - got no model-9.safetensors")


def test_an_index_with_a_tensor_of_another_shard(folder):
    edit_index(folder, lambda names: names.update({"x": "model-0.safetensors"}))
    refused(folder, r"tensors are missing - got \['x'\]")


@pytest.mark.parametrize("away", ["../model-0.safetensors", "/x/model-0.safetensors", "linked"])
def test_an_index_that_leads_out_of_the_folder(folder, away):
    if away == "linked":
        shutil.move(folder / "model-0.safetensors", folder.parent / "out.safetensors")
        (folder / "model-0.safetensors").symlink_to(folder.parent / "out.safetensors")
    else:
        edit_index(folder, lambda names: names.update({NORM: away}))
    refused(folder, "index names a file outside its folder")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_make_a_file(folder, zipped):
    torch = pytest.importorskip("torch")
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    trap = folder.parent / "trap"
    state = {"model.norm.weight": torch.ones(16), "x": Trap(trap)}
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    refused(folder, "the global posix.system" if zipped else "bare pickle")
    assert not trap.exists()


def test_torch_files_give_the_same_weights(good, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    from tulu_jax.checkpoint import hf

    other = shutil.copytree(good, tmp_path / "hf")
    state = {}
    for file in sorted(other.glob("*.safetensors")):
        state.update(load_file(file))
        file.unlink()
    (other / INDEX).unlink()
    torch.save(state, other / "pytorch_model.bin")
    (_, left), (_, right) = hf.load(good), hf.load(other)
    for path in hf.open_folder(good).paths():
        a, b = left, right
        for key in path:
            a, b = a[key], b[key]
        assert np.array_equal(a, b), path
