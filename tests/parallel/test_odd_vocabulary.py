"""Training with a vocabulary that no mesh axis divides: the same losses and weights as on one."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from train.small import MODEL, layout_on, plan_on, random_params, two_a_row

from tulu_jax.data.to_device import put_batch
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

pytestmark = pytest.mark.slow

STEPS = optax.sgd(0.2)


def two_steps(config, layout):
    with layout.activate():
        params = random_params(config)
        params = jax.tree.map(jax.device_put, params, layout.params(config))
        plan = plan_on(layout, STEPS, config)
        state, step, losses = plan.start(params), plan.step(), []
        for seed in range(2):
            state, metrics = step(state, put_batch(two_a_row(seed=seed), layout.rows))
            losses.append(float(metrics["loss"]))
        return losses, jax.device_get(state.params)


@pytest.mark.parametrize("tied", [False, True])
def test_eight_devices_equal_one(tied):
    config = dataclasses.replace(MODEL, vocab_size=65, tie_embeddings=tied)
    layout = layout_for(config, make_mesh(MeshConfig(fsdp=2, tensor=4)))
    assert "the loss pads it" in " ".join(layout.notes)
    losses, params = two_steps(config, layout)
    wanted, whole = two_steps(config, layout_on(None))
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert params["embedding"].shape == (65, MODEL.d_model)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), params, whole)
