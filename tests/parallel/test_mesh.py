"""Meshes and layouts: what fits, what is noted, what is refused."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tulu_jax.axes import MESH_AXES
from tulu_jax.errors import ConfigError
from tulu_jax.models import LlamaConfig, abstract_params
from tulu_jax.parallel import Layout, MeshConfig, layout_for, make_mesh
from tulu_jax.parallel.rules import abstract_sharded_params

MODEL = LlamaConfig(64, 32, 48, 2, 4, 2, 8, 64, 1e-5)


def layout(**sizes):
    return layout_for(MODEL, make_mesh(MeshConfig(**sizes)))


@pytest.mark.parametrize(
    ("sizes", "devices", "expected"),
    [
        ({}, 8, (1, 1, 8, 1, 1)),
        ({}, 1, (1, 1, 1, 1, 1)),
        ({"data": 2, "tensor": 2}, 8, (1, 2, 2, 1, 2)),
        ({"data": -1, "fsdp": 4}, 8, (1, 2, 4, 1, 1)),
        ({"fsdp": 1, "tensor": -1}, 8, (1, 1, 1, 1, 8)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 8, (1, 2, 2, 1, 2)),
        ({"slice": 2, "sequence": 2}, 8, (2, 1, 2, 2, 1)),
        ({"fsdp": 1, "sequence": -1}, 8, (1, 1, 1, 8, 1)),
    ],
)
def test_resolve(sizes, devices, expected):
    assert MeshConfig(**sizes).resolve(devices) == expected


@pytest.mark.parametrize("sizes", [{"tensor": 3}, {"fsdp": 4}, {"fsdp": 16}, {"data": 16}])
def test_mesh_that_does_not_use_all_devices(sizes):
    with pytest.raises(
        ConfigError, match=r"mesh does not use all devices - got slice=1, data=.* the 8 devices "
        r"present - change one of MESH_SLICE, MESH_DATA, MESH_FSDP, MESH_SEQUENCE, MESH_TENSOR"
    ):  # fmt: skip
        MeshConfig(**sizes).resolve(8)


@pytest.mark.parametrize("name", MESH_AXES)
@pytest.mark.parametrize("size", [0, -2])
def test_impossible_sizes(name, size):
    with pytest.raises(
        ConfigError, match=rf"MeshConfig.{name} is out of range - got {size} - expected 1 or more,"
    ):
        MeshConfig(**{name: size})


def test_two_open_sizes():
    with pytest.raises(ConfigError, match=r"more than one mesh axis is -1"):
        MeshConfig(data=-1, fsdp=-1)


def test_axes_are_auto():
    """Explicit axes, make_mesh's default, would refuse ordinary products."""
    mesh = make_mesh(MeshConfig())
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
    assert mesh.axis_names == MESH_AXES


def test_weights_lie_as_the_rules_say():
    shardings = layout(data=2, fsdp=2, tensor=2).params(MODEL)
    layers = shardings["layers"]
    assert shardings["embedding"].spec == PartitionSpec("tensor", "fsdp")
    assert shardings["lm_head"].spec == PartitionSpec("fsdp", "tensor")
    assert layers["attention"]["query"].spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert layers["attention"]["out"].spec == PartitionSpec(None, "tensor", None, "fsdp")
    assert layers["mlp"]["down"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert layers["mlp_norm"]["scale"].spec == PartitionSpec(None, "fsdp")


def test_targets_have_shapes_and_shardings():
    chosen = layout(fsdp=4, tensor=2)
    target = abstract_sharded_params(MODEL, chosen)
    for leaf, shape in zip(
        jax.tree.leaves(target), jax.tree.leaves(abstract_params(MODEL)), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        assert leaf.sharding.mesh.shape == chosen.mesh.shape


def test_what_stays_whole_is_noted():
    assert layout(data=2, fsdp=2, tensor=2).notes == ()
    notes = layout(fsdp=2, tensor=4).notes
    assert notes == ("kv_heads (2) is not split over tensor=4: it does not divide",)
    odd = dataclasses.replace(MODEL, vocab_size=63)
    assert "vocab (63) is not split over tensor=2" in layout_for(
        odd, make_mesh(MeshConfig(fsdp=4, tensor=2))
    ).notes[0]  # fmt: skip


def test_tables_of_an_odd_vocabulary_are_split_along_embed():
    odd = dataclasses.replace(MODEL, vocab_size=63)
    chosen = layout_for(odd, make_mesh(MeshConfig(fsdp=2, tensor=4)))
    assert any("the loss pads it" in note for note in chosen.notes)
    for name, at in (("embedding", 1), ("lm_head", 0)):
        sharding = chosen.params(odd)[name]
        shape = abstract_params(odd)[name].shape
        assert sharding.spec[at] == ("fsdp", "tensor")
        assert sharding.shard_shape(shape)[at] == shape[at] // 8
    query = chosen.params(odd)["layers"]["attention"]["query"]
    assert query.spec == layout(fsdp=2, tensor=4).params(MODEL)["layers"]["attention"]["query"].spec


@pytest.mark.parametrize(
    ("changes", "sizes", "message"),
    [
        ({"d_model": 36}, {"fsdp": 8},
         r"mesh axis fsdp does not divide the model - got fsdp=8, d_model=36 .* MESH_FSDP"),
        ({}, {"fsdp": 1, "tensor": 8},
         r"mesh axis tensor does not divide the model - got tensor=8, num_heads=4 .* MESH_TENSOR"),
        ({"d_ff": 50}, {"fsdp": 2, "tensor": 4},
         r"mesh axis tensor does not divide the model - got tensor=4, d_ff=50"),
    ],
)  # fmt: skip
def test_axis_that_does_not_divide(changes, sizes, message):
    with pytest.raises(ConfigError, match=message):
        layout_for(dataclasses.replace(MODEL, **changes), make_mesh(MeshConfig(**sizes)))


def test_rows_must_divide():
    chosen = layout(data=2, fsdp=2, tensor=2)
    chosen.check_rows(8)
    with pytest.raises(
        ConfigError, match=r"BATCH_SIZE cannot be split over the devices - got 6 - expected a "
        r"multiple of slice x data x fsdp = 4"
    ):  # fmt: skip
        chosen.check_rows(6)


def on_hosts(grid, hosts):
    """A layout whose devices belong to these hosts, in mesh order."""
    devices = np.array([SimpleNamespace(process_index=host) for host in hosts]).reshape(grid)
    shape = {"slice": 1} | dict(zip(("data", "fsdp", "tensor"), grid, strict=True))
    return Layout(SimpleNamespace(devices=devices, shape=shape), (), ())


@pytest.mark.parametrize(
    ("grid", "hosts", "shares"),
    [
        ((1, 4, 1), [0, 0, 1, 1], [(0, 2), (1, 2)]),
        ((2, 2, 1), [0, 0, 1, 1], [(0, 2), (1, 2)]),
        ((1, 4, 1), [0, 1, 0, 1], [(0, 2), (1, 2)]),
        ((1, 1, 4), [0, 0, 1, 1], [(0, 1), (0, 1)]),
        ((1, 2, 4), [0, 0, 1, 1, 2, 2, 3, 3], [(0, 2), (0, 2), (1, 2), (1, 2)]),
    ],
)
def test_each_host_feeds_the_rows_its_devices_hold(monkeypatch, grid, hosts, shares):
    for host, share in enumerate(shares):
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        assert on_hosts(grid, hosts).row_share() == share


def test_hosts_that_overlap_in_part_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    with pytest.raises(
        ConfigError, match=r"hosts cannot share the rows of a batch evenly .* MESH_D"
    ):
        on_hosts((1, 3, 2), [0, 0, 0, 1, 1, 1]).row_share()
