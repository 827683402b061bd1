"""Rules of the user, slices and sequences, and moments in host memory: what is taken or refused."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tulu_jax.axes import MESH_AXES
from tulu_jax.errors import ConfigError
from tulu_jax.models import LlamaConfig
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh
from tulu_jax.parallel.rules import DEFAULT_RULES, check_overrides

MODEL = LlamaConfig(64, 32, 48, 2, 4, 2, 8, 64, 1e-5)


def layout(rules=None, **sizes):
    return layout_for(MODEL, make_mesh(MeshConfig(**sizes)), rules=rules)


def test_weights_are_split_over_sequence_too():
    chosen = layout(fsdp=2, sequence=2, tensor=2)
    params = chosen.params(MODEL)
    assert params["layers"]["mlp"]["up"].spec == PartitionSpec(None, ("fsdp", "sequence"), "tensor")
    assert chosen.rows.spec == PartitionSpec(("slice", "data", "fsdp"), None)
    assert chosen.num_row_shards == 2 and chosen.platform == "cpu"


def test_slices_hold_copies():
    chosen = layout(slice=4, fsdp=2)
    assert chosen.params(MODEL)["lm_head"].spec == PartitionSpec("fsdp", "tensor")
    assert chosen.num_row_shards == 8


def test_rules_of_the_user():
    rules = {"embed": ["data", "fsdp"], "vocab": None, "activation_length": ("sequence", "tensor")}
    chosen = layout(rules, data=2, fsdp=2, tensor=2)
    params = chosen.params(MODEL)
    assert params["layers"]["mlp"]["up"].spec == PartitionSpec(None, ("data", "fsdp"), "tensor")
    assert params["lm_head"].spec == PartitionSpec(("data", "fsdp"), None)
    assert dict(chosen.rules)["activation_length"] == "tensor"  # sequence is 1 here
    assert chosen.overrides == rules


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"embd": "fsdp"}, r"unknown logical axis - got AXIS_RULES\['embd'\]='fsdp' - expected em"),
        ({"zzz": None}, r"unknown logical axis - .* expected batch or activation_length or length"),
        ({"embed": "fdsp"}, r"unknown mesh axis - got AXIS_RULES\['embed'\]='fdsp' - expected N"
         r"one, one of slice, data, fsdp, sequence, tensor, or several of them"),
        ({"embed": ("fsdp", 3)}, r"unknown mesh axis"),
        ({"embed": 3}, r"unknown mesh axis - got AXIS_RULES\['embed'\]=3"),
        ({"embed": ("fsdp", "fsdp")}, r"a rule names a mesh axis twice - got"),
        ({"batch": "data"}, r"rows of a batch cannot be laid otherwise - .* slice x data x fsdp"),
    ],
)  # fmt: skip
def test_rules_that_are_refused(rules, message):
    with pytest.raises(ConfigError, match=message):
        check_overrides(rules)


def test_every_logical_axis_of_the_models_has_a_rule():
    names = {name for name, _ in layout().rules}
    assert names == set(DEFAULT_RULES)


def test_two_axes_that_do_not_divide_together():
    with pytest.raises(
        ConfigError, match=r"mesh axis fsdp x sequence does not divide the model - got fsdp x "
        r"sequence=8, d_model=36 - expected .* choose another MESH_FSDP or MESH_SEQUENCE"
    ):  # fmt: skip
        model = LlamaConfig(64, 36, 48, 2, 4, 2, 8, 64, 1e-5)
        layout_for(model, make_mesh(MeshConfig(fsdp=4, sequence=2)))


def test_rows_must_divide_in_length():
    layout(fsdp=4, sequence=2).check_length(32)
    with pytest.raises(
        ConfigError, match=r"rows cannot be split over the devices - got TASK_FEATURE_LENGTHS="
        r"\{'targets': 33\} - expected a multiple of the 2 parts of a row - change it, MESH_SEQ"
    ):  # fmt: skip
        layout(fsdp=4, sequence=2).check_length(33)
    megatron = layout({"activation_length": ("sequence", "tensor")}, sequence=2, tensor=2)
    with pytest.raises(ConfigError, match=r"multiple of the 4 parts of a row"):
        megatron.check_length(34)


class Chip(SimpleNamespace):
    """As much of a TPU chip as a mesh looks at; hashable, as devices are."""

    __hash__ = object.__hash__


def pod(num_slices, side=2):
    """Chips of several v5e slices of side x side."""
    return [
        Chip(id=16 * part + side * y + x, platform="tpu", device_kind="TPU v5 lite",
             coords=(x, y, 0), core_on_chip=0, slice_index=part, process_index=part)
        for part in range(num_slices) for y in range(side) for x in range(side)
    ]  # fmt: skip


@pytest.mark.parametrize("config", [{}, {"slice": 2, "fsdp": 2, "tensor": 2}])
def test_slices_are_kept_apart(config):
    mesh = make_mesh(MeshConfig(**config), pod(2))
    assert mesh.axis_names == MESH_AXES and mesh.shape["slice"] == 2
    for number, part in enumerate(mesh.devices):
        assert {chip.slice_index for chip in part.flat} == {number}


def test_one_slice_of_chips():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), pod(1))
    assert mesh.devices.shape == (1, 1, 2, 1, 2)
    assert len({chip.id for chip in mesh.devices.flat}) == 4


def test_slices_that_would_be_mixed():
    with pytest.raises(
        ConfigError, match=r"mesh does not keep slices apart - got MESH_SLICE=4 - expected 2, the "
        r"slices that the 8 devices come in, or -1"
    ):  # fmt: skip
        make_mesh(MeshConfig(slice=4), pod(2))


def test_host_memory_must_be_in_reach():
    def chip(*kinds):
        memories = [SimpleNamespace(kind=kind) for kind in kinds]
        return Chip(device_kind="Chip 1", addressable_memories=lambda: memories)

    def on(chip):
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        grid = np.empty((1,) * 5, object)
        grid[...] = chip
        fake = SimpleNamespace(devices=grid, shape=mesh.shape)
        return layout_for(MODEL, fake, offload_optimizer=True)

    with pytest.raises(
        ConfigError, match=r"optimizer's state cannot lie in the hosts' memory - got Chip 1 with "
        r"memory of the kinds device - expected .* pinned_host - set OFFLOAD_OPTIMIZER=False"
    ):  # fmt: skip
        on(chip("device"))
    assert on(chip("device", "pinned_host")).offload_optimizer
