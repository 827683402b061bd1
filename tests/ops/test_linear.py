"""The matrix product and its hand-written gradient against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.ops import linear


@pytest.mark.parametrize("out", [(3,), (7,), (2, 5)])
def test_product_and_gradients(out):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(2, 4, 6)))
    weight = jnp.float32(rng.normal(size=(6, *out)))
    flat = weight.reshape(6, -1)
    np.testing.assert_allclose(linear(x, weight), x @ flat, atol=1e-6)
    pull = jnp.float32(rng.normal(size=(2, 4, flat.shape[1])))
    got = jax.grad(lambda x, w: jnp.sum(linear(x, w) * pull), argnums=(0, 1))(x, weight)
    expected = jax.grad(lambda x, w: jnp.sum(x @ w.reshape(6, -1) * pull), argnums=(0, 1))(
        x, weight
    )
    for left, right in zip(got, expected, strict=True):
        assert left.shape == right.shape
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_bfloat16_gradient_is_accumulated_in_float32():
    x = jnp.ones((1, 512, 1), jnp.bfloat16)
    grad = jax.grad(lambda w: linear(x, w).astype(jnp.float32).sum())(jnp.ones((1, 1)))
    assert grad.dtype == jnp.float32 and float(grad[0, 0]) == 512.0
