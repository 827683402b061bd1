"""Torch's files: equal to what torch reads, and only data from those that want to do more."""

import collections
import contextlib
import io
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_jax.checkpoint.hf.files import find_tensors
from tulu_jax.checkpoint.hf.tensors import read_tensor
from tulu_jax.checkpoint.hf.torch_file import read_torch_file
from tulu_jax.checkpoint.hf.torch_pickle import PickleError, read_pickle
from tulu_jax.errors import CheckpointError

torch = pytest.importorskip("torch")


def tensors():
    """Whole tensors and views of every kind, some sharing one storage."""
    base = torch.randn(6, 8)
    return {
        "whole": base,
        "transposed": base.T,
        "part": base[2:5, 1:7:2],
        "row": base[3],
        "again": base.view(48),
        "half": torch.randn(5).half(),
        "brain": torch.randn(3, 2, 4).bfloat16().transpose(0, 2),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
    }


def as_numpy(tensor):
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def assert_same(path):
    specs = read_torch_file(path)
    wanted = torch.load(path, weights_only=True)
    assert list(specs) == list(wanted)
    for name, tensor in wanted.items():
        found, expected = read_tensor(specs[name]), as_numpy(tensor)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        assert np.array_equal(found, expected), name


def test_equals_torch(tmp_path):
    torch.save(tensors(), tmp_path / "x.bin")
    assert_same(tmp_path / "x.bin")
    torch.save(collections.OrderedDict(tensors()), tmp_path / "y.bin")
    assert_same(tmp_path / "y.bin")
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 4)).state_dict(), tmp_path / "z.bin")
    assert_same(tmp_path / "z.bin")


def test_newer_pickle_protocols(tmp_path):
    some = tensors()
    torch.save(some, tmp_path / "y.bin", pickle_protocol=4)
    for name, spec in read_torch_file(tmp_path / "y.bin").items():
        assert np.array_equal(read_tensor(spec), as_numpy(some[name])), name


def test_slices_of_a_view_are_slices_of_the_tensor(tmp_path):
    torch.save(tensors(), tmp_path / "x.bin")
    specs = read_torch_file(tmp_path / "x.bin")
    transposed = as_numpy(torch.load(tmp_path / "x.bin")["transposed"])
    assert np.array_equal(specs["transposed"].view()[2:5, 1:3], transposed[2:5, 1:3])


def test_shards_and_the_preference_for_safetensors(tmp_path):
    import json

    torch.save({"a": torch.ones(2)}, tmp_path / "p-1.bin")
    torch.save({"b": torch.zeros(2)}, tmp_path / "p-2.bin")
    index = {"weight_map": {"a": "p-1.bin", "b": "p-2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert {name: spec.file.name for name, spec in find_tensors(tmp_path).items()} == {
        "a": "p-1.bin",
        "b": "p-2.bin",
    }
    from safetensors.numpy import save_file

    save_file({"c": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    assert list(find_tensors(tmp_path)) == ["c"]


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_does_nothing(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"a": torch.ones(2), "b": Evil(trap)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"more than tensors - got the global posix.system"):
        find_tensors(tmp_path)
    assert not trap.exists()
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert trap.exists(), "the trap must be one"


def test_a_malicious_pickle_without_a_zip(tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(CheckpointError, match=r"bare pickle, as torch before 1.6 wrote"):
        find_tensors(tmp_path)
    assert not trap.exists()


def test_the_old_format_names_the_safe_conversion(tmp_path):
    torch.save(tensors(), tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"bare pickle.*convert it .*weights_only=True\)"):
        read_torch_file(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(2)], "not a dict of names and tensors - got list"),
        ({}, "not a dict of names and tensors - got dict"),
        ({"model": {"a": torch.ones(2)}}, "got 'model': dict .*save the state dict alone"),
        ({"epoch": 3}, "got 'epoch': int"),
        ({"a": torch.ones(3).to_sparse()}, "the global torch._utils._rebuild_sparse_tensor"),
        ({"a": np.ones(2)}, "more than tensors - got the global numpy"),
        ({"a": {1, 2}}, "more than tensors - got (opcode|the global)"),
    ],
)
def test_other_things_than_state_dicts(tmp_path, value, message):
    torch.save(value, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(tmp_path / "x.bin")


def rewritten(path, changes):
    """The torch file with some entries' content replaced; stored, as torch stores them."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries.update(changes)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)


@pytest.fixture
def simple(tmp_path):
    torch.save({"a": torch.arange(12.0).reshape(3, 4)}, tmp_path / "x.bin")
    return tmp_path / "x.bin"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x/data/0": b"short"}, "storage x/data/0 of 5 bytes, 48 expected"),
        ({"x/data/0": None}, "no storage data/0"),
        ({"x/data.pkl": None}, "0 entries named data.pkl"),
        ({"y/data.pkl": b"."}, "2 entries named data.pkl"),
        ({"x/byteorder": b"big"}, "not little-endian"),
        ({"x/data.pkl": b"\x80\x02}q\x00"}, "more than tensors - got damaged"),
        ({"x/data.pkl": b""}, "more than tensors - got damaged"),
    ],
)
def test_damaged_archives(simple, changes, message):
    rewritten(simple, changes)
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(simple)


def test_compressed_storages_and_twice_the_same_entry(simple):
    with zipfile.ZipFile(simple) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(simple, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="storage x/data/0 is compressed"):
        read_torch_file(simple)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(simple, "a") as archive:
        archive.writestr("x/data/0", b"x" * 48)
    with pytest.raises(CheckpointError, match="two entries of one name"):
        read_torch_file(simple)


def pickled(shape, strides, offset=0, count=12):
    """A state dict's pickle whose one tensor has these sizes."""
    out = io.BytesIO()

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if obj == "STORAGE" else None

    class Tensor:
        def __reduce__(self):
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, ("STORAGE", offset, shape, strides, False, collections.OrderedDict())

    Pickler(out, 2).dump({"a": Tensor()})
    return out.getvalue()


def test_pickled_helper_is_what_torch_writes(simple):
    rewritten(simple, {"x/data.pkl": pickled((3, 4), (4, 1))})
    assert_same(simple)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((3, 5), (4, 1)), "tensor reaches beyond its storage - got a: shape"),
        (((3, 4), (4, 1), 1), "tensor reaches beyond its storage"),
        (((2**40,), (0,)), "tensor reaches beyond its storage"),
        (((2**61, 2**61), (1, 1)), "tensor reaches beyond its storage"),
        (((-3, 4), (4, 1)), "sizes are no whole numbers"),
        (((3, 4), (4, -1)), "sizes are no whole numbers"),
        (((3, 4), (4,)), "2 axes and 1 strides"),
        (((2**60,), (1,), 0, 2**60), "storage x/data/0 of 48 bytes, 4,611"),
        (((3, 4), (4, 1), 0, -12), "a persistent id that is no storage"),
    ],
)
def test_hostile_sizes(simple, sizes, message):
    rewritten(simple, {"x/data.pkl": pickled(*sizes)})
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(simple)


def test_a_pickle_that_is_too_long(simple):
    rewritten(simple, {"x/data.pkl": b"N" * (2**24 + 1)})
    with pytest.raises(CheckpointError, match=r"a data.pkl of 16,777,217 bytes"):
        read_torch_file(simple)


def test_every_truncation_is_refused(simple):
    whole = simple.read_bytes()
    for length in range(0, len(whole), 7):
        simple.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="torch file is truncated or damaged"):
            read_torch_file(simple)


def test_flipped_bits_are_refused_or_leave_data_alone(simple):
    whole = bytearray(simple.read_bytes())
    for place in range(0, len(whole), 3):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x10
        simple.write_bytes(spoilt)
        try:
            specs = read_torch_file(simple)
        except CheckpointError:
            continue
        assert all(spec.num_bytes <= 48 for spec in specs.values())


def test_a_tensor_cannot_be_changed_once_its_sizes_are_checked():
    whole = pickled((3, 4), (4, 1))
    assert whole.endswith(b"s.")
    changed = whole[:-2] + b"}U\x05shapeK\x63sb" + whole[-2:]
    with pytest.raises(PickleError, match="damaged: AttributeError"):
        read_pickle(changed)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(content):
    with contextlib.suppress(PickleError):
        read_pickle(b"\x80\x02" + content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02N", "damaged"),
        (b"\x80\x02N\x85\x86.", "damaged"),
        (b"\x80\x02NNNs.", "damaged"),
        (b"\x80\x02NNa.", "damaged"),
        (b"\x80\x02N}b.", "damaged"),
        (b"\x80\x02]}K\x01s.", "damaged"),
        (b"\x80\x02}]NNs.", "damaged"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "damaged: a memo of 2,147,483,647 values"),
        (b"\x80\x02j\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "a call that makes no tensor"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "attributes set on what is no dict"),
        (b"\x80\x02ccollections\nOrderedDict\nN}U\x04nameU\x01xs\x86b.", "attributes set on what"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "a call that makes no tensor"),
        (b"\x80\x02)R.", "damaged"),
        (
            b"\x80\x02(U\x07storageccollections\nOrderedDict\nU\x010U\x03cpuK\x01tQ.",
            "is no storage",
        ),
        (b"\x80\x02cbuiltins\neval\n.", "the global builtins.eval"),
        (
            b"\x80\x02ctorch._utils\n__builtins__.eval\n.",
            "the global torch._utils.__built",
        ),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "the global posix.system"),
        (b"\x80\x02\x95\xff\xff\xff\xff\xff\xff\xff\x0f.", "damaged"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "damaged"),
        (b"\x80\x02(iposix\nsystem\n.", "opcode INST"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"Pstorage\n.", "opcode PERSID"),
    ],
)
def test_pickles_that_are_refused(content, message):
    with pytest.raises(PickleError, match=message):
        read_pickle(content)
