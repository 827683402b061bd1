"""Three steps give the same losses and weights on every mix of mesh axes, cut and option.

Tolerance: float32 rounding, which differs because sums over devices are added in another order:
1e-6 relative for losses, 1e-6 absolute for weights of size 1 after updates of 3e-3.
"""

import itertools
import math
import re

import jax
import numpy as np
import pytest
from thorough import THOROUGH

from train.small import MODEL, plan_on, random_params, two_a_row
from tulu_jax.data.to_device import put_batch
from tulu_jax.models import ComputeConfig
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.optimizer import make_optimizer

BATCHES = [two_a_row(16, seed=i) for i in range(3)]
MEGATRON = {"activation_length": ("sequence", "tensor")}


class Outcome:
    """What three steps leave behind."""

    def __init__(self, state, metrics, program: str) -> None:
        self.state = state
        self.params = jax.device_get(state.params)
        self.metrics = metrics
        self.program = program


def three_steps(
    devices=1, *, rules=None, offload=False, optimizer=None, batches=BATCHES, compute=None,
    options=None, **axes,
):  # fmt: skip
    """The outcome of three steps on the first `devices` devices in that mesh."""
    mesh = make_mesh(MeshConfig(**{"fsdp": 1, **axes}), jax.devices()[:devices])
    layout = layout_for(MODEL, mesh, rules=rules, offload_optimizer=offload)
    settings = {"learning_rate": 3e-3, "warmup_ratio": 0.2, **(optimizer or {})}
    maker = make_optimizer(OptimizerConfig(**settings), 6)
    options = {"compute": compute or ComputeConfig(), **(options or {})}
    plan = plan_on(layout, maker, batch_size=16, **options)
    with layout.activate():
        params = jax.tree.map(jax.device_put, random_params(), layout.params(MODEL))
        state, step = plan.start(params), plan.step()
        rows = [put_batch(batch, layout.rows) for batch in batches]
        compiled = step.lower(state, rows[0]).compile()
        metrics = []
        for batch in rows:
            state, found = compiled(state, batch)
            metrics.append({name: float(value) for name, value in found.items()})
    return Outcome(state, metrics, compiled.as_text())


def assert_equal(left, right):
    for one, other in zip(left.metrics, right.metrics, strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    for one, other in zip(*map(jax.tree.leaves, (left.params, right.params)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.fixture(scope="module")
def one_device():
    return three_steps()


AXES = ("slice", "data", "fsdp", "sequence", "tensor")
REMAT = ("none", "minimal", "attention", "full", "query,mlp_gate")
KERNELS = ("blockwise", "dense")
MICRO_BATCHES = (1, 2, 4)
CHOSEN = 7
"""Of all mixes every seventh is run unless `TULU_THOROUGH=1` asks for all."""


def every_mix() -> dict[str, dict]:
    """All ways to spread 2, 4 or 8 devices over the axes, each with a remat policy, a kernel and a
    number of micro-batches: 5 x 2 x 3 of them, taken in turn, so that all meet."""
    mixes = {}
    for devices in (2, 4, 8):
        for sizes in itertools.product((1, 2, 4, 8), repeat=len(AXES)):
            axes = dict(zip(AXES, sizes, strict=True))
            if math.prod(sizes) != devices or MODEL.num_heads % axes["tensor"]:
                continue
            number = len(mixes)
            rows = len(BATCHES[0]["tokens"]) // (axes["slice"] * axes["data"] * axes["fsdp"])
            settings = {
                "devices": devices,
                "compute": ComputeConfig(
                    remat=REMAT[number % len(REMAT)], attention=KERNELS[number % len(KERNELS)]
                ),
                "options": {"micro_batches": min(rows, MICRO_BATCHES[number % 3])},
                "rules": MEGATRON if number % 4 == 0 else None,
            }
            used = "-".join(f"{name}{size}" for name, size in axes.items() if size > 1)
            words = (used, settings["compute"].remat, settings["compute"].attention,
                     f"micro{settings['options']['micro_batches']}")  # fmt: skip
            mixes[" ".join(words) + " Megatron" * (number % 4 == 0)] = settings | axes
    return mixes


MIXES = every_mix()


def pytest_generate_tests(metafunc):
    if "mix" in metafunc.fixturenames:
        metafunc.parametrize("mix", list(MIXES)[:: 1 if THOROUGH else CHOSEN])


@pytest.mark.slow
def test_every_mix_of_axes_equals_one_device(one_device, mix):
    assert_equal(three_steps(**MIXES[mix]), one_device)


def test_the_mixes_that_are_run_meet_every_choice():
    chosen = list(MIXES.values())[::CHOSEN]
    assert {mix["compute"].remat for mix in chosen} == set(REMAT)
    assert {mix["compute"].attention for mix in chosen} == set(KERNELS)
    assert {mix["options"]["micro_batches"] for mix in chosen} == set(MICRO_BATCHES)
    assert {mix["devices"] for mix in chosen} == {2, 4, 8}
    assert {axis for axis in AXES for mix in chosen if mix[axis] > 1} == set(AXES)


def test_weights_and_moments_are_given_away(one_device):
    """The step writes them where they lay: nothing of their size is held twice."""
    assert aliases(one_device.program) == len(jax.tree.leaves(one_device.state))


def aliases(program: str) -> int:
    """Arguments that a compiled program writes its results into."""
    return re.search(r"input_output_alias=\{(.*?)\}, entry", program)[1].count("-alias")


@pytest.mark.slow
def test_adafactor_on_a_mesh_equals_one_device():
    adafactor = {"name": "adafactor", "factor_min_size": 8}
    one = three_steps(optimizer=adafactor)
    spread = three_steps(8, optimizer=adafactor, data=2, fsdp=2, tensor=2)
    assert_equal(spread, one)
    rows = spread.state.opt_state[1][0].v_row["layers"]["mlp"]["up"]
    assert rows.shape == (2, 32) and rows.addressable_shards[0].data.shape == (2, 16)
    tiny = sum(leaf.size == 1 for leaf in jax.tree.leaves(one.state.opt_state))
    assert aliases(one.program) >= len(jax.tree.leaves(one.state)) - tiny


@pytest.mark.slow
def test_moments_in_host_memory_change_nothing(one_device):
    away = three_steps(2, offload=True, fsdp=2)
    assert_equal(away, one_device)
    moments = away.state.opt_state[1][0]
    kinds = {leaf.sharding.memory_kind for leaf in jax.tree.leaves((moments.mu, moments.nu))}
    assert kinds == {"pinned_host"}
    assert aliases(away.program) == len(jax.tree.leaves(away.state))


def test_bad_steps_leave_everything_as_it_was(one_device):
    """With the limit below every norm, three steps move nothing but the count of steps."""
    norms = [row["grad_norm"] for row in one_device.metrics]
    assert all(row["skipped"] == 0 for row in one_device.metrics)
    limit = float(min(norms)) * 0.999
    limited = three_steps(options={"on_bad_step": "skip", "bad_grad_norm": limit})
    assert [row["skipped"] for row in limited.metrics] == [1, 1, 1]
    assert int(limited.state.step) == 3
    for one, other in zip(*map(jax.tree.leaves, (limited.params, random_params())), strict=True):
        np.testing.assert_array_equal(one, other)
    for moment in jax.tree.leaves(jax.device_get(limited.state.opt_state)):
        assert not np.any(moment)
