import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tulu_jax.errors import ConfigError
from tulu_jax.generate import Sampling, keep_top_k, keep_top_p, next_tokens

LOGITS = hnp.arrays(np.float32, (3, 7), elements=st.floats(-8, 8, width=32, allow_subnormal=False))


def kept(logits):
    return np.isfinite(np.asarray(logits))


def softmax(row):
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()


def reference_top_p(row, p):
    """Tokens by falling probability (of equals the first) until their mass reaches p."""
    probs, mass, keep = softmax(row), 0.0, np.zeros(len(row), bool)
    for token in np.argsort(-row, kind="stable"):
        if mass >= p:
            break
        keep[token] = True
        mass += probs[token]
    return keep, mass


@settings(deadline=None, max_examples=50)
@given(LOGITS, st.floats(0.01, 0.99))
def test_top_p_is_the_smallest_set_with_the_mass(logits, p):
    ours = np.asarray(keep_top_p(jnp.asarray(logits), p))
    for row, result in zip(logits, ours, strict=True):
        keep, mass = reference_top_p(row, p)
        probs = softmax(row)
        if np.min(np.abs(np.cumsum(np.sort(probs)[::-1]) - p)) < 1e-5:
            continue  # at the border, rounding decides
        assert np.array_equal(np.isfinite(result), keep)
        assert mass >= p
        assert mass - probs[keep].min() < p
        assert np.array_equal(result[keep], row[keep])


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.4, [0, 1, 0, 0]), (0.6, [0, 1, 1, 0]), (0.85, [1, 1, 1, 0]), (0.95, [1, 1, 1, 1])],
)
def test_top_p_example(p, expected):
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.3, 0.1]]))
    assert kept(keep_top_p(logits, p))[0].tolist() == list(map(bool, expected))


@settings(deadline=None, max_examples=30)
@given(LOGITS, st.integers(1, 7))
def test_top_k_keeps_k(logits, k):
    ours = kept(keep_top_k(jnp.asarray(logits), k))
    for row, keep in zip(logits, ours, strict=True):
        assert set(np.flatnonzero(keep)) == set(np.argsort(-row, kind="stable")[:k])


def test_top_k_example():
    result = keep_top_k(jnp.array([[1.0, 3.0, 2.0, 0.0]]), 2)
    assert result.tolist() == [[-np.inf, 3.0, 2.0, -np.inf]]


def draw(logits, sampling, count=4000):
    keys = jax.random.split(jax.random.key(0), count)
    rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits)))
    return np.asarray(next_tokens(rows, keys, sampling))


def test_greedy_takes_the_likeliest():
    assert set(draw([0.0, 2.0, 1.0], Sampling(), 5)) == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature):
    logits = np.array([0.0, 1.0, 2.0, -1.0], np.float32)
    counts = np.bincount(draw(logits, Sampling(temperature)), minlength=4) / 4000
    np.testing.assert_allclose(counts, softmax(logits / temperature), atol=0.03)


def test_draws_stay_in_the_set():
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    assert set(draw(logits, Sampling(1.0, top_p=0.6))) == {0, 1}
    assert set(draw(logits, Sampling(1.0, top_k=3))) == {0, 1, 2}
    assert set(draw(logits, Sampling(1.0, top_p=0.9, top_k=2))) == {0, 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, "temperature is out of range - got -1.0 - expected 0 or more"),
        ({"temperature": float("nan")}, "temperature is out of range - got nan"),
        ({"top_p": 0.0}, "top_p is out of range - got 0.0 - expected a number above 0 and up to 1"),
        ({"top_p": 1.1}, "top_p is out of range"),
        ({"top_k": -1}, "top_k is out of range"),
    ],
)
def test_impossible_settings(values, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**values)
