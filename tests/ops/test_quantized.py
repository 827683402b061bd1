"""Weights in 4 and 8 bits: NumPy's own reading of them, products, gradients, memory."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.ops import AdaptedWeight, dense, linear, quantize, quantized

pytest.importorskip("qwix")

LAYERS, IN, OUT = 2, 96, 10
SCALES = {"int8": 127.5, "nf4": 1.0}
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
     0.7229568362236023, 1.0]
)  # fmt: skip
"""Dettmers et al. 2023, appendix E."""


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))


LEVELS = {"int8": np.arange(-128.0, 128), "nf4": NF4}


def by_numpy(matrix, kind):
    """[in, out] rounded tile by tile of 48 inputs, and where no rounding is a matter of luck."""
    result, sure = np.empty(matrix.shape), np.empty(matrix.shape, bool)
    for start in range(0, len(matrix), 48):
        tile = matrix[start : start + 48].astype(np.float64)
        scale = np.abs(tile).max(0) / SCALES[kind]
        away = np.abs((tile / scale)[..., None] - LEVELS[kind])
        result[start : start + 48] = LEVELS[kind][away.argmin(-1)] * scale
        nearest = np.sort(away, axis=-1)
        sure[start : start + 48] = nearest[..., 1] - nearest[..., 0] > 1e-4
    return result, sure


def test_docstring_example():
    weight = jnp.array([0.5, -0.1, 0.02, -0.5]).reshape(1, 4, 1)
    small = quantize(weight, "nf4", inputs=4, outputs=1)
    np.testing.assert_allclose(small.scale, [[[0.5]]])
    wanted = [[[0.5], [-0.0924], [0.0398], [-0.5]]]
    np.testing.assert_allclose(dense(small, jnp.float32), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", quantized.KINDS)
def test_numbers_and_products(kind):
    weight = draw(LAYERS, IN, 5, 2)
    small = jax.jit(lambda w: quantize(w, kind, inputs=IN, outputs=OUT))(weight)
    assert small.shape == weight.shape and small.scale.shape == (LAYERS, 2, OUT)
    assert small.values.dtype == {"nf4": jnp.uint4, "int8": jnp.int8}[kind]
    for layer, found in zip(
        np.asarray(weight).reshape(-1, IN, OUT), dense(small, np.float32), strict=True
    ):
        wanted, sure = by_numpy(layer, kind)
        np.testing.assert_allclose(np.asarray(found)[sure], wanted[sure], rtol=1e-6)
        assert sure.mean() > 0.95
    first = jax.tree.map(lambda leaf: leaf[0], small)
    x, a, b = draw(3, IN), draw(IN, 4), draw(4, OUT)

    def product(x, a, b):
        return linear(x, AdaptedWeight(first, a, b, None, 0.5, 0.0).reshape(IN, OUT))

    numbers = np.asarray(dense(first, np.float32))
    np.testing.assert_allclose(product(x, a, b), x @ numbers + 0.5 * (x @ a @ b), atol=1e-4)
    found = jax.grad(lambda *args: jnp.sum(jnp.sin(product(*args))), (0, 1, 2))(x, a, b)
    plain = jax.grad(lambda x, a, b: jnp.sum(jnp.sin(x @ numbers + 0.5 * (x @ a @ b))), (0, 1, 2))(
        x, a, b
    )
    for left, right in zip(found, plain, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)


def test_tiles_divide_the_inputs():
    assert [quantized.tile_of(n) for n in (4096, 172, 11008, 67)] == [64, 43, 64, 1]


def test_without_the_package(monkeypatch):
    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r"cannot be kept in 8 or 4 bits .*tulu-jax\[qlora\]"):
        quantize(jnp.ones((1, 2, 2)), "nf4", inputs=2, outputs=2)
