"""A step gives the same weights however it is cut into micro-batches or spread over devices."""

import re

import jax
import numpy as np
import pytest

from train.small import MESHES, MODEL, layout_on, plan_on, random_params, two_a_row
from tulu_jax.data.to_device import put_batch
from tulu_jax.models import ComputeConfig, LlamaConfig
from tulu_jax.parallel import MeshConfig
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.optimizer import make_optimizer
from tulu_jax.train.terms import TERMS

pytestmark = pytest.mark.slow

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_ratio=0.2), 6)
BATCHES = [two_a_row(seed=i) for i in range(5)]


def start(plan):
    params = jax.tree.map(jax.device_put, random_params(plan.model), plan.layout.params(plan.model))
    return plan.start(params)


def run_steps(mesh: MeshConfig | None, config: LlamaConfig = MODEL, **options):
    """Metrics of five steps, the final weights, and how often the step was traced."""
    layout = layout_on(mesh, config)
    plan = plan_on(layout, OPTIMIZER, config, **options)
    with layout.activate():
        state, traces = start(plan), []
        step = plan.step(lambda: traces.append(1))
        metrics = []
        for batch in BATCHES:
            state, row = step(state, put_batch(batch, layout.rows))
            metrics.append({name: float(value) for name, value in row.items()})
        assert int(state.step) == len(BATCHES)
        return metrics, jax.device_get(state.params), len(traces)


def assert_equal_runs(left, right):
    for one, other in zip(left[0], right[0], strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    for one, other in zip(jax.tree.leaves(left[1]), jax.tree.leaves(right[1]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.fixture(scope="module")
def on_one_device():
    return {name: run_steps(None, loss_normalization=name) for name in ("token", "paper")}


def test_the_two_normalizations_differ(on_one_device):
    assert on_one_device["token"][0][0]["loss"] != pytest.approx(
        on_one_device["paper"][0][0]["loss"], rel=1e-3
    )


def test_metrics_count_the_global_batch(on_one_device):
    first, batch = on_one_device["token"][0][0], BATCHES[0]
    assert first["tokens"] == (batch["segment_ids"] > 0).sum()
    assert first["loss_tokens"] == batch["loss_mask"].sum()


@pytest.fixture
def in_terms(monkeypatch):
    """Runs whose loss has two terms that follow from the nll's own arrays."""
    monkeypatch.setitem(TERMS, "size", lambda b, t, w, x, head: (w * (x**2).mean(-1)).sum())
    monkeypatch.setitem(TERMS, "counted", lambda b, t, w, x, head: w.sum())

    def run(mesh=None, **options):
        return run_steps(mesh, loss_terms={"size": 0.5, "counted": -2.0}, **options)

    return run


def test_a_loss_tells_its_terms_apart(on_one_device, in_terms):
    """The weights of a batch come to 1, and before the first update the nll is that without."""
    metrics, _, traces = in_terms()
    assert metrics[0]["nll"] == pytest.approx(on_one_device["token"][0][0]["loss"], rel=1e-6)
    assert metrics[4]["nll"] != pytest.approx(on_one_device["token"][0][4]["loss"], rel=1e-4)
    for row in metrics:
        assert row["terms/counted"] == pytest.approx(1.0) and row["terms/size"] > 0.1
        assert row["loss"] == pytest.approx(row["nll"] + 0.5 * row["terms/size"] - 2.0, rel=1e-5)
    assert traces == 1 and "nll" not in on_one_device["token"][0][0]


def test_terms_do_not_depend_on_how_a_batch_is_cut(in_terms):
    assert_equal_runs(in_terms(MESHES["mixed"], micro_batches=2), in_terms())


def test_step_is_traced_once(on_one_device):
    assert on_one_device["token"][2] == 1


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("normalization", ["token", "paper"])
def test_micro_batches_equal_one_batch(on_one_device, normalization, parts):
    cut = run_steps(None, loss_normalization=normalization, micro_batches=parts)
    assert_equal_runs(cut, on_one_device[normalization])


@pytest.mark.parametrize("name", ["data", "fsdp", "tensor", "mixed"])
def test_eight_devices_equal_one(on_one_device, name):
    if MODEL.num_kv_heads % MESHES[name].tensor:
        assert layout_on(MESHES[name]).notes
    spread = run_steps(MESHES[name])
    assert_equal_runs(spread, on_one_device["token"])
    assert spread[2] == 1


def test_micro_batches_in_paper_mode_on_a_mixed_mesh(on_one_device):
    spread = run_steps(MESHES["mixed"], loss_normalization="paper", micro_batches=2)
    assert_equal_runs(spread, on_one_device["paper"])


def lowered_text(mesh: MeshConfig | None, compute: ComputeConfig, *, activate: bool = True) -> str:
    layout = layout_on(mesh)
    plan = plan_on(layout, OPTIMIZER, compute=compute)
    step, state, rows = plan.step(), plan.state(), plan.batch()
    if not activate:
        return step.lower(state, rows).as_text()
    with layout.activate():
        return step.lower(state, rows).as_text()


CONSTRAINT = r"sdy\.sharding_constraint"


@pytest.mark.parametrize("name", MESHES)
def test_every_activation_is_constrained(name):
    """Forward: table and embedded tokens, and in the one scanned layer what both blocks begin
    with, query, key, value, feed-forward and two sums; backward: each of them again."""
    text = lowered_text(MESHES[name], ComputeConfig())
    assert len(re.findall(CONSTRAINT, text)) == 2 * (2 + 8)


def test_full_remat_constrains_the_recomputed_layer_too():
    text = lowered_text(MESHES["fsdp"], ComputeConfig(remat="full"))
    assert len(re.findall(CONSTRAINT, text)) >= 2 * (2 + 8) + 4


def test_without_the_layout_in_force_nothing_is_constrained():
    """Why the loop must run inside `layout.activate()`: Flax drops constraints silently."""
    text = lowered_text(MESHES["fsdp"], ComputeConfig(), activate=False)
    assert not re.findall(CONSTRAINT, text)


def test_weights_and_moments_are_really_split():
    layout = layout_on(MESHES["mixed"])
    with layout.activate():
        state = start(plan_on(layout, OPTIMIZER))
    query = state.params["layers"]["attention"]["query"]
    assert query.addressable_shards[0].data.size * 4 == query.size
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape == query.shape]
    assert len(moments) >= 2
    for moment in moments:
        assert moment.sharding.is_equivalent_to(query.sharding, query.ndim)


def test_fresh_weights_do_not_depend_on_the_mesh():
    states = []
    for mesh in (None, MESHES["mixed"]):
        layout = layout_on(mesh)
        with layout.activate():
            states.append(jax.device_get(plan_on(layout, OPTIMIZER).start().params))
    for one, two in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(one, two)


def test_eval_step_sums_over_the_global_batch():
    sums = []
    for mesh in (None, MESHES["mixed"]):
        layout = layout_on(mesh)
        with layout.activate():
            plan = plan_on(layout, OPTIMIZER)
            params = start(plan).params
            sums.append(plan.eval_step()(params, put_batch(BATCHES[0], layout.rows)))
    (nll, count), (nll_8, count_8) = jax.device_get(sums)
    assert count == count_8 == BATCHES[0]["loss_mask"].sum()
    np.testing.assert_allclose(nll, nll_8, rtol=1e-6)
