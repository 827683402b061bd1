"""Topologies by name, and the real TPU compiler where it is installed."""

import dataclasses
import importlib.util

import jax
import pytest

from tests.plan.small import bigger, config
from tulu_jax.errors import ConfigError
from tulu_jax.models import ComputeConfig
from tulu_jax.models.config import attention_kernel
from tulu_jax.parallel import MeshConfig
from tulu_jax.plan import (
    CHIPS,
    TooLargeError,
    Topology,
    Work,
    compile_step,
    find_topology,
    memory_budget,
    plan_run,
    roofline,
)
from tulu_jax.plan.duration import Schedule, duration
from tulu_jax.plan.estimate import estimate_traffic
from tulu_jax.plan.topology import slice_sizes
from tulu_jax.train.metrics import PEAK_FLOPS
from tulu_jax.train.step import TPU_OPTIONS, compiler_options


def at(name, sides, *, num_slices=1):
    return Topology(name, (), CHIPS[name], sides, num_slices)


@pytest.mark.parametrize(
    ("topology", "links", "called"),
    [
        (at("v4", (2, 2, 1)), 2, "v4-8"),
        (at("v4", (2, 2, 4)), 3, "v4-32"),
        (at("v4", (4, 4, 8)), 6, "v4-256"),
        (at("v5p", (4, 4, 4), num_slices=2), 6, "2 x v5p-128"),
        (at("v5e", (2, 4)), 2, "v5e-8"),
        (at("v5e", (8, 16)), 3, "v5e-128"),
        (at("v6e", (16, 16)), 4, "v6e-256"),
    ],
)
def test_links_and_names_of_slices(topology, links, called):
    assert (topology.num_links, topology.slice_name) == (links, called)


def test_figures_agree_with_those_of_mfu():
    for kind, flops in PEAK_FLOPS.items():
        chips = [chip for chip in CHIPS.values() if chip.kind == kind]
        assert all(chip.flops in (flops, flops / 2) for chip in chips)
    assert slice_sizes(CHIPS["v5e"])[0] == (4, "2x2")


def refuse(monkeypatch, error):
    from jax.experimental import topologies

    def raise_(**_):
        raise error

    monkeypatch.setattr(topologies, "get_topology_desc", raise_)


def test_a_missing_compiler_is_told(monkeypatch):
    refuse(monkeypatch, RuntimeError("JAX TPU support not installed"))
    with pytest.raises(ConfigError, match=r"cannot be compiled on this machine.*tulu-jax\[plan\]"):
        find_topology("v4:2x2x1")


def test_a_busy_compiler_is_told(monkeypatch):
    refuse(monkeypatch, jax.errors.JaxRuntimeError("ABORTED: ... multi-process lockfile."))
    with pytest.raises(ConfigError, match="libtpu is in use by another process"):
        find_topology("v4-32")


def test_a_slice_that_does_not_exist_is_told(monkeypatch):
    refuse(monkeypatch, jax.errors.JaxRuntimeError("INVALID_ARGUMENT: not divisible"))
    with pytest.raises(ConfigError, match=r"there is no such slice - got v5e:3x3.*v5e:2x2"):
        find_topology("v5e:3x3")


@pytest.fixture(scope="module")
def described():
    """A v4 of 8 chips, played by CPUs."""
    return dataclasses.replace(find_topology("cpu:8"), chip=CHIPS["v4"], sides=(2, 2, 2))


def test_roofline_by_hand(described):
    """8 chips, weights in 4 shards and 2 copies, one resource after the other."""
    run = plan_run(config(mesh=MeshConfig(data=2, fsdp=4)), described)
    traffic = estimate_traffic(run)
    gathered = 2 * run.model.num_matmul_params * 4
    found = {(one.kind, one.group_size): one.sent_bytes for one in traffic.collectives}
    assert found == {
        ("all-gather", 4): gathered * 3 / 4,
        ("reduce-scatter", 4): gathered / 2 * 3 / 4,
        ("all-reduce", 2): gathered / 2 / 4,
    }
    roof = roofline(run, traffic, Work(tokens=1000, loss_tokens=300))
    assert roof.ici == pytest.approx(sum(found.values()) / (3 * 4.5e10))
    assert roof.dcn == 0
    model = run.model
    attention = 6 * 3 * 4 * 16 * 64
    layers = 6 * 3 * model.num_layer_matmul_params
    head = 6 * 64 * 512 * 300
    assert roof.model_flops == (layers + attention) * 1000 + head
    assert roof.compute == pytest.approx(((layers + attention) * 1024 + head) / (8 * 275e12))
    assert roof.seconds == max(roof.compute, roof.memory, roof.ici)
    assert roof.bound in ("compute", "memory", "ICI") and 0 < roof.mfu < 1
    schedule = Schedule(steps=3600, examples=None, tokens=1000, loss_tokens=300, notes=())
    time = duration(run, roof, schedule, efficiency=0.5)
    assert time.hours == pytest.approx(2 * roof.seconds)
    assert time.chip_hours == 8 * time.hours
    assert time.tokens_per_second == 1000 / time.step_seconds


def test_recomputing_costs_time_and_saves_memory(described):
    policies = ("none", "minimal", "attention", "full")
    runs = [plan_run(config(compute=ComputeConfig(remat=one)), described) for one in policies]
    kept = [memory_budget(run).kept for run in runs]
    assert kept == sorted(kept, reverse=True) and len({*kept}) == 4
    done = [roofline(run, estimate_traffic(run), Work(1024, 1024)).compute for run in runs]
    assert done == sorted(done)
    assert done[0] < done[2] < done[3]
    # 3 layers x 256 positions x float32: the layer's input, and half of the queries' 4 x 16.
    named = plan_run(config(compute=ComputeConfig(remat="query")), described)
    assert memory_budget(named).kept == 3 * 256 * 4 * (64 + 32)


def test_what_is_offloaded_is_not_on_the_device(described):
    kept = ComputeConfig(remat="query", offload_activations="layer_input")
    assert memory_budget(plan_run(config(compute=kept), described)).kept == 3 * 256 * 4 * 64 / 2


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU compiler, is not installed: pip install 'tulu-jax[plan]'",
)


@needs_libtpu
@pytest.mark.slow
def test_a_tiny_model_compiles_for_v5e_with_the_flash_kernel():
    model = bigger(d_model=256, num_heads=2, num_kv_heads=2, head_dim=128, num_layers=2,
                   max_length=256)  # fmt: skip
    settings = config(
        model=model, mesh=MeshConfig(fsdp=2, tensor=2), batch_size=4, length=256,
        compute=ComputeConfig(dtype="bfloat16", remat="full"),
    )  # fmt: skip
    run = plan_run(settings, find_topology("v5e:2x2"))
    assert attention_kernel(settings.compute, run.layout.mesh).name == "splash"
    step = compile_step(run)
    budget = memory_budget(run)
    batch = 4 * 2 * 256 * 4  # Four arrays of 2 rows of 256 int32.
    assert step.arguments == pytest.approx(budget.arguments + batch, rel=0.1)  # Padded to tiles.
    assert step.donated > 0.9 * budget.arguments
    assert step.arguments < step.peak < CHIPS["v5e"].usable_bytes
    kinds = {one.kind for one in step.traffic.collectives}
    assert kinds >= {"all-gather", "all-reduce"}
    layers = [one for one in step.traffic.collectives if one.kind == "all-gather"]
    assert max(one.count for one in layers) >= 2 * 3  # Both layers, each pass.
    # JAX's cache has the program now, and cannot read it back: no warning, made again.
    assert compile_step(run).peak == step.peak


@needs_libtpu
def test_options_that_libtpu_does_not_know_are_left_out(monkeypatch):
    layout = plan_run(config(mesh=MeshConfig()), find_topology("v5e:2x2")).layout
    assert compiler_options(layout) == TPU_OPTIONS  # It knows all of ours.
    monkeypatch.setitem(TPU_OPTIONS, "xla_no_such_option", True)
    assert compiler_options(layout) == {"xla_jf_bf16_propagation": False}
    assert compiler_options(plan_run(config(), find_topology("cpu:8")).layout) == {}


@needs_libtpu
@pytest.mark.slow
def test_a_step_that_does_not_fit_says_so():
    model = bigger(d_model=4096, d_ff=16384, num_heads=32, num_kv_heads=32, head_dim=128,
                   num_layers=96)  # fmt: skip
    settings = config(model=model, mesh=MeshConfig(), batch_size=4, length=256,
                      compute=ComputeConfig(dtype="bfloat16", remat="full"))  # fmt: skip
    run = plan_run(settings, find_topology("v5e:2x2"))
    with pytest.raises(TooLargeError, match=r"the step does not fit - got .*v5e:2x2, mesh fsdp 4"):
        compile_step(run)
