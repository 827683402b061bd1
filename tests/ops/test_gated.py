"""The gate of SwiGLU against NumPy in float64, JAX's own gradient and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tulu_jax.ops import silu_gate


def test_worked_example():
    got = silu_gate(jnp.array([0.0, 1.0, -1.0]), jnp.array([2.0, 3.0, 2.0]))
    np.testing.assert_allclose(got, [0, 2.1932, -0.5379], atol=5e-5)


def test_value_and_gradients_equal_float64():
    rng = np.random.default_rng(0)
    gate, up, pull = 3 * rng.normal(size=(3, 2, 5, 7))
    share = 1 / (1 + np.exp(-gate))
    value, back = jax.vjp(silu_gate, jnp.float32(gate), jnp.float32(up))
    gate_grad, up_grad = back(jnp.float32(pull))
    np.testing.assert_allclose(value, gate * share * up, atol=2e-6)
    np.testing.assert_allclose(up_grad, pull * gate * share, atol=2e-6)
    np.testing.assert_allclose(
        gate_grad, pull * up * (share + gate * share * (1 - share)), atol=4e-6
    )


def test_far_from_zero_nothing_overflows():
    gate = jnp.array([-200.0, 200.0])
    value, back = jax.vjp(silu_gate, gate, jnp.ones(2))
    np.testing.assert_array_equal(value, [0, 200])
    np.testing.assert_array_equal(back(jnp.ones(2)), [[0, 1], [0, 200]])


def test_bfloat16_rounds_as_torch_does():
    rng = np.random.default_rng(1)
    gate, up = (torch.tensor(x, dtype=torch.bfloat16) for x in rng.normal(size=(2, 1000)))
    expected = (torch.nn.functional.silu(gate) * up).float().numpy()
    got = silu_gate(*(jnp.bfloat16(x.float().numpy()) for x in (gate, up)))
    # Where silu itself falls between two bfloat16, the last bit of an exponential decides.
    assert np.mean(np.float32(got) == expected) > 0.995
    np.testing.assert_allclose(np.float32(got), expected, rtol=2**-7)


def test_only_the_inputs_are_kept():
    gate = jnp.ones((4, 8))
    kept = jax.tree.leaves(jax.vjp(silu_gate, gate, gate)[1])
    assert sum(x.size for x in kept if x.shape == gate.shape) == 2 * gate.size
