"""Attention against loops in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.ops import attend
from tulu_jax.ops.attention import visible
from tulu_jax.ops.attention.masks import same_segment

SEGMENTS = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])


def test_visible_docstring_example():
    segments = jnp.array([[1, 1, 2, 2, 2, 0]])
    drawn = """
        x . . . . .
        x x . . . .
        . . x . . .
        . . x x . .
        . . x x x .
        . . . . . ."""
    expected = [[mark == "x" for mark in line.split()] for line in drawn.strip().splitlines()]
    np.testing.assert_array_equal(visible(segments, segments, jnp.arange(6)[None])[0], expected)


def test_same_segment_docstring_example():
    segments = jnp.array([[1, 2, 0]])
    np.testing.assert_array_equal(same_segment(segments, segments)[0], np.eye(3))


def slow_attention(query, key, value, segments):
    """One query, head and row at a time."""
    rows, length, heads, width = query.shape
    group = heads // key.shape[2]
    out = np.zeros(query.shape)
    for b, t, n in np.ndindex(rows, length, heads):
        seen = [s for s in range(t + 1) if segments[b, s] == segments[b, t] > 0]
        if seen:
            scores = key[b, seen, n // group] @ query[b, t, n] / np.sqrt(width)
            weights = np.exp(scores - scores.max())
            out[b, t, n] = weights / weights.sum() @ value[b, seen, n // group]
    return out


@pytest.mark.parametrize(
    ("kv_heads", "length", "kernel"),
    [(1, 6, "dense"), (2, 6, "dense"), *((k, t, "blockwise") for k in (1, 2, 4) for t in (6, 512))],
)
def test_equals_loops(kv_heads, length, kernel):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, length, 4, 8))
    key, value = rng.normal(size=(2, 2, length, kv_heads, 8))
    segments = np.sort(rng.integers(1, 4, (2, length)), axis=1)
    segments[0, -length // 5 :] = 0
    slots = np.broadcast_to(np.arange(length), segments.shape)
    arrays = [jnp.float32(a) for a in (query, key, value)]
    places = [jnp.asarray(a) for a in (segments, segments, slots)]
    got = np.asarray(attend(*arrays, *places, kernel=kernel))
    real = segments > 0
    np.testing.assert_allclose(
        got[real], slow_attention(query, key, value, segments)[real], atol=1e-5
    )
    assert np.isfinite(got).all()


@pytest.mark.parametrize("length", [6, 512])
def test_gradients_equal_plain_softmax(length):
    rng = np.random.default_rng(1)
    query = jnp.float32(rng.normal(size=(1, length, 4, 8)))
    key, value = jnp.float32(rng.normal(size=(2, 1, length, 2, 8)))
    segments = jnp.asarray(np.sort(rng.integers(1, 3, (1, length)), axis=1))
    slots = jnp.arange(length)[None]
    pull = jnp.float32(rng.normal(size=query.shape))

    def plain(query, key, value):
        key, value = jnp.repeat(key, 2, axis=2), jnp.repeat(value, 2, axis=2)
        scores = jnp.einsum("BTNH,BSNH->BNTS", query, key) / np.sqrt(8)
        mask = visible(segments, segments, slots)[:, None]
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        return jnp.sum(jnp.einsum("BNTS,BSNH->BTNH", weights, value) * pull)

    def ours(query, key, value):
        return jnp.sum(attend(query, key, value, segments, segments, slots) * pull)

    expected = jax.grad(plain, argnums=(0, 1, 2))(query, key, value)
    got = jax.grad(ours, argnums=(0, 1, 2))(query, key, value)
    for left, right in zip(got, expected, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_padding_has_finite_gradients():
    segments, slots = jnp.zeros((1, 4), jnp.int32), jnp.arange(4)[None]
    x = jnp.ones((1, 4, 1, 2))
    grad = jax.grad(lambda x: attend(x, x, x, segments, segments, slots).sum())(x)
    assert bool(jnp.isfinite(grad).all())
