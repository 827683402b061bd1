"""Three steps give the same losses and weights on every mix of mesh axes, cut and option.

Tolerance: float32 rounding, which differs because sums over devices are added in another order:
1e-6 relative for losses, 1e-6 absolute for weights of size 1 after updates of 3e-3.
"""

import re

import jax
import numpy as np
import pytest

from train.small import MODEL, random_params, two_a_row
from tulu_jax.data.to_device import put_batch
from tulu_jax.models import ComputeConfig
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.optimizer import make_optimizer
from tulu_jax.train.state import create_state
from tulu_jax.train.step import make_train_step

BATCHES = [two_a_row(seed=i) for i in range(3)]
MEGATRON = {"activation_length": ("sequence", "tensor")}
FAST_COMPILE = {"xla_backend_optimization_level": 0}
"""Half the time to compile; the partitioning, which is what is tested, is the same."""


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
    with layout.activate():
        params = jax.tree.map(jax.device_put, random_params(), layout.params(MODEL))
        state = create_state(MODEL, maker, layout, params=params)
        step = make_train_step(
            MODEL, maker, layout, compute=compute or ComputeConfig(), **(options or {})
        )
        rows = [put_batch(batch, layout.rows) for batch in batches]
        compiled = step.lower(state, rows[0]).compile(compiler_options=FAST_COMPILE)
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


# Eight devices over data, fsdp, tensor and the three together: test_step.py.
MIXES = {
    "sequence, four micro-batches": (2, {"sequence": 2, "options": {"micro_batches": 4}}),
    "slice": (2, {"slice": 2}),
    "Megatron": (4, {"sequence": 2, "tensor": 2, "rules": MEGATRON}),
    "slice, fsdp, sequence": (8, {"slice": 2, "fsdp": 2, "sequence": 2}),
    "fsdp, sequence, tensor": (8, {"fsdp": 2, "sequence": 2, "tensor": 2}),
    "slice, data, tensor": (8, {"slice": 2, "data": 2, "tensor": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXES)
def test_every_mix_of_axes_equals_one_device(one_device, name):
    devices, changes = MIXES[name]
    assert_equal(three_steps(devices, **changes), one_device)


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
    limited = three_steps(options={"skip_bad": True, "bad_grad_norm": float(min(norms)) * 0.999})
    assert [row["skipped"] for row in limited.metrics] == [1, 1, 1]
    assert int(limited.state.step) == 3
    for one, other in zip(*map(jax.tree.leaves, (limited.params, random_params())), strict=True):
        np.testing.assert_array_equal(one, other)
    for moment in jax.tree.leaves(jax.device_get(limited.state.opt_state)):
        assert not np.any(moment)
