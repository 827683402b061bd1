import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.ops import AdaptedWeight, TransposedWeight, linear, transposed
from tulu_jax.ops.transposed import FEW_ROWS, product


def test_example_of_the_docstring():
    weight = TransposedWeight(jnp.array([[1.0, 0], [0, 1], [1, 1]]), (2, 3))
    assert product(jnp.array([[1.0, 2]]), weight).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("rows", [1, 16, FEW_ROWS, FEW_ROWS + 1])
def test_the_product_is_that_of_the_array(rows):
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, 1, 12)).astype(np.float32)
    array = rng.normal(size=(12, 3, 5)).astype(np.float32)
    weight = transposed(array, 1)
    assert (weight.shape, weight.ndim, weight.rows.shape) == ((12, 3, 5), 3, (15, 12))
    expected = x.astype(np.float64) @ array.reshape(12, 15)
    np.testing.assert_allclose(jax.jit(linear)(x, weight), expected, atol=1e-5)
    both = transposed(array.reshape(3, 4, 15), 2).reshape(-1, 15)
    np.testing.assert_allclose(jax.jit(linear)(x, both), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [16, 64])
def test_a_row_does_not_depend_on_its_place_or_its_neighbours(rows):
    """What batch invariance of generation stands on: bit for bit, in one compiled program."""
    rng = np.random.default_rng(0)
    weight = transposed(jnp.asarray(rng.normal(size=(96, 200)).astype(np.float32)), 1)
    x = rng.normal(size=(rows, 96)).astype(np.float32)
    run = jax.jit(linear)
    expected = np.asarray(run(x, weight))
    order = rng.permutation(rows)
    np.testing.assert_array_equal(run(x[order], weight), expected[order])
    x[1:] *= 1e6
    np.testing.assert_array_equal(run(x, weight)[0], expected[0])


def test_adapters_stay_beside_it():
    rng = np.random.default_rng(0)
    x, array = rng.normal(size=(4, 6)), rng.normal(size=(6, 5))
    a, b = rng.normal(size=(6, 2)), rng.normal(size=(2, 5))
    x, array, a, b = (jnp.asarray(one, jnp.float32) for one in (x, array, a, b))
    adapted = AdaptedWeight(array, a, b, None, 0.5, 0.0)
    kept = dataclasses.replace(adapted, weight=transposed(array, 1))
    np.testing.assert_allclose(linear(x, kept), linear(x, adapted), atol=1e-5)


def test_half_precision_sums_in_what_is_asked_for():
    x = jnp.ones((2, 300), jnp.bfloat16)
    weight = transposed(jnp.full((300, 1), 1.0, jnp.bfloat16), 1)
    assert product(x, weight).dtype == jnp.bfloat16
    assert product(x, weight, jnp.float32).tolist() == [[300.0], [300.0]]


@pytest.mark.parametrize("rows", [2, FEW_ROWS + 1])
def test_whole_numbers_are_scaled_by_output(rows):
    weight = TransposedWeight(
        jnp.array([[2, 0], [0, -3], [1, 1]], jnp.int8), (2, 3), jnp.array([0.5, 1.0, 4.0])
    )
    x = jnp.tile(jnp.array([[1.0, 2]]), (rows, 1))
    assert jax.jit(product)(x, weight).tolist() == [[1, -6, 12]] * rows
    half = product(x.astype(jnp.bfloat16), weight)
    assert half.dtype == jnp.bfloat16 and half[0].tolist() == [1, -6, 12]
