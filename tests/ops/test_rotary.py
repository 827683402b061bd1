"""Rotary positions against complex numbers in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from tulu_jax.ops import (
    apply_rotary,
    rotary_angles,
    rotary_rates,
    stretch_linear,
    stretch_llama3,
)


def test_docstring_example():
    cos, sin = rotary_angles(jnp.array([[3]]), rotary_rates(4, 100.0))
    np.testing.assert_allclose(cos[0, 0], [-0.98999250, 0.95533649], atol=1e-7)
    np.testing.assert_allclose(sin[0, 0], [0.14112001, 0.29552021], atol=1e-7)


def test_half_split_layout():
    a, b, c, d = 1.0, 2.0, 3.0, 5.0
    cos, sin = jnp.array([[[0.5, 0.25]]]), jnp.array([[[0.75, 0.125]]])
    got = apply_rotary(jnp.array([[[[a, b, c, d]]]]), cos, sin)[0, 0, 0]
    expected = [a * 0.5 - c * 0.75, b * 0.25 - d * 0.125, c * 0.5 + a * 0.75, d * 0.25 + b * 0.125]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_equals_complex_rotation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 3, 16))
    positions = rng.integers(0, 2000, (2, 7))
    rates = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
    turn = np.exp(1j * positions[..., None] * rates)[:, :, None]
    turned = (x[..., :8] + 1j * x[..., 8:]) * turn
    cos, sin = rotary_angles(jnp.asarray(positions), rotary_rates(16, 10_000.0))
    got = apply_rotary(jnp.float32(x), cos, sin)
    expected = np.concatenate([turned.real, turned.imag], -1)
    # float32 angles at position 2000 carry 2000 x 6e-8 of error.
    np.testing.assert_allclose(got, expected, atol=5e-4)


def test_bfloat16_input_keeps_float32_angles():
    cos, _ = rotary_angles(jnp.array([[1999]]), rotary_rates(8, 10_000.0))
    assert cos.dtype == jnp.float32
    np.testing.assert_allclose(cos[0, 0, 0], np.cos(1999.0), atol=1e-4)
    assert apply_rotary(jnp.ones((1, 1, 1, 8), jnp.bfloat16), cos, cos).dtype == jnp.bfloat16


def test_docstring_example_of_rates():
    np.testing.assert_allclose(rotary_rates(4, 100.0), [1, 0.1], rtol=1e-6)


def test_docstring_example_of_llama3():
    rates = np.float32(2 * np.pi / 8192 * np.array([5, 4, 2.5, 1, 0.5]))
    got = stretch_llama3(
        rates, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=8192
    )
    np.testing.assert_allclose(got / rates, [1, 1, (1 + 1 / 8) / 2, 1 / 8, 1 / 8], rtol=1e-5)


def test_linear_stretch_is_a_slower_position():
    rates = rotary_rates(8, 10_000.0)
    slow, _ = rotary_angles(jnp.array([[6]]), stretch_linear(rates, factor=3.0))
    np.testing.assert_allclose(slow, rotary_angles(jnp.array([[2]]), rates)[0], atol=1e-6)


def test_only_the_first_channels_turn():
    x = jnp.arange(1.0, 7).reshape(1, 1, 1, 6)
    cos, sin = jnp.array([[[0.5, 0.25]]]), jnp.array([[[0.75, 0.125]]])
    got = apply_rotary(x, cos, sin)
    np.testing.assert_array_equal(got[..., :4], apply_rotary(x[..., :4], cos, sin))
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])


def test_every_angle_is_taken_once():
    """XLA on CPU would put the cosine into each loop that needs it, once for every head."""
    rates = rotary_rates(8, 1e4)

    def turned(x, positions):
        cos, sin = rotary_angles(positions, rates)
        return [apply_rotary(x * times, cos, sin) for times in range(1, 4)]

    shapes = jnp.zeros((2, 16, 4, 8)), jnp.zeros((2, 16), jnp.int32)
    text = jax.jit(turned).lower(*shapes).compile().as_text()
    assert (text.count(" cosine("), text.count(" sine(")) == (1, 1)
