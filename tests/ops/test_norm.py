"""RMS and layer norm against NumPy in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.ops import layer_norm, rms_norm


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.1])
def test_equals_float64_numpy(eps):
    rng = np.random.default_rng(0)
    x, scale = rng.normal(size=(2, 3, 16)), rng.normal(size=16)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale
    got = rms_norm(jnp.float32(x), jnp.float32(scale), eps=eps)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_bfloat16_has_float32_statistics():
    # 256 + 1 is not a bfloat16: a bfloat16 sum over 512 ones would stop at 256.
    x = jnp.ones((1, 1, 512), jnp.bfloat16)
    np.testing.assert_array_equal(rms_norm(x, jnp.ones(512), eps=1e-6), x)


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_equals_float64_numpy(eps):
    rng = np.random.default_rng(0)
    x, scale, bias = 3 + rng.normal(size=(2, 3, 16)), rng.normal(size=16), rng.normal(size=16)
    spread = np.sqrt(x.var(-1, keepdims=True) + eps)
    expected = (x - x.mean(-1, keepdims=True)) / spread * scale + bias
    got = layer_norm(jnp.float32(x), jnp.float32(scale), jnp.float32(bias), eps=eps)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    half = layer_norm(jnp.bfloat16(x), jnp.float32(scale), jnp.float32(bias), eps=eps)
    assert half.dtype == jnp.bfloat16
