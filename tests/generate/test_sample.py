import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from tulu_jax.errors import ConfigError
from tulu_jax.generate import Sampling
from tulu_jax.generate.sample import Controls, choose, keep_likeliest

LOGITS = hnp.arrays(np.float32, (3, 7), elements=st.floats(-8, 8, width=32, allow_subnormal=False))


def kept(logits):
    return np.isfinite(np.asarray(logits))


def softmax(row):
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()


def keep(logits, k=0, p=1.0):
    rows = len(logits)
    ks, ps = jnp.full(rows, k, jnp.int32), jnp.full(rows, p, jnp.float32)
    return np.asarray(keep_likeliest(jnp.asarray(logits), ks, ps))


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
    for row, result in zip(logits, keep(logits, p=p), strict=True):
        chosen, mass = reference_top_p(row, p)
        probs = softmax(row)
        if np.min(np.abs(np.cumsum(np.sort(probs)[::-1]) - p)) < 1e-5:
            continue  # at the border, rounding decides
        assert np.array_equal(np.isfinite(result), chosen)
        assert mass >= p
        assert mass - probs[chosen].min() < p
        assert np.array_equal(result[chosen], row[chosen])


@pytest.mark.parametrize(
    ("k", "p", "expected"),
    [
        (2, 1.0, [0, 1, 1, 0]),
        (0, 0.4, [0, 1, 0, 0]),
        (0, 0.6, [0, 1, 1, 0]),
        (0, 0.85, [1, 1, 1, 0]),
        (0, 0.95, [1, 1, 1, 1]),
        (2, 0.6, [0, 1, 0, 0]),
    ],
)
def test_example_of_the_docstring(k, p, expected):
    logits = np.log(np.array([[0.1, 0.5, 0.3, 0.1]], np.float32))
    assert kept(keep(logits, k, p))[0].tolist() == list(map(bool, expected))


@settings(deadline=None, max_examples=30)
@given(LOGITS, st.integers(1, 7))
def test_top_k_keeps_k(logits, k):
    for row, chosen in zip(logits, kept(keep(logits, k=k)), strict=True):
        assert set(np.flatnonzero(chosen)) == set(np.argsort(-row, kind="stable")[:k])


def test_rows_have_sets_of_their_own():
    logits = jnp.log(jnp.array([[0.1, 0.5, 0.3, 0.1]] * 3))
    found = keep_likeliest(logits, jnp.array([1, 0, 0]), jnp.array([1.0, 0.6, 1.0]))
    assert kept(found).sum(-1).tolist() == [1, 2, 4]


def controls(count, sampling, *, seed=0, biases=()):
    ids, values = zip(*biases, strict=True) if biases else ((99,), (0.0,))
    return Controls(
        jnp.full(count, sampling.temperature, jnp.float32),
        jnp.full(count, sampling.top_p, jnp.float32),
        jnp.full(count, sampling.top_k, jnp.int32),
        jnp.full(count, seed, jnp.uint32),
        jnp.arange(count),
        jnp.full((count, 1), -1),
        jnp.tile(jnp.asarray(ids), (count, 1)),
        jnp.tile(jnp.asarray(values, jnp.float32), (count, 1)),
        jnp.zeros(count, jnp.int32),
    )


CHOOSE = jax.jit(choose)


def chosen(logits, sampling, count=4000, **options):
    rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits)))
    zeros, alive = jnp.zeros(count, jnp.int32), jnp.ones(count, bool)
    return CHOOSE(rows, controls(count, sampling, **options), zeros, alive)


def test_greedy_takes_the_likeliest():
    found = chosen([0.0, 2.0, 1.0], Sampling(), 5)
    assert set(found.token.tolist()) == {1}
    np.testing.assert_allclose(found.logprob, np.log(softmax(np.array([0.0, 2.0, 1.0])))[1], 1e-6)


@pytest.mark.parametrize(
    "sampling", [Sampling(0.5), Sampling(1.0), Sampling(2.0), Sampling(1.5, 0.8), Sampling(1, 1, 3)]
)
def test_draws_follow_the_exact_distribution(sampling):
    """Chi-square against the probabilities at the temperature, within the set."""
    logits = np.array([0.0, 1.0, 2.0, -1.0, 0.5], np.float32)
    found = chosen(logits, sampling)
    exact = softmax(keep(logits[None] / sampling.temperature, sampling.top_k, sampling.top_p)[0])
    counts = np.bincount(found.token, minlength=5)
    assert not counts[exact == 0].any()
    inside = exact > 0
    assert stats.chisquare(counts[inside], 4000 * exact[inside]).pvalue > 1e-3
    raw = np.log(softmax(logits))[np.asarray(found.token)]
    np.testing.assert_allclose(found.logprob, raw, atol=1e-5)


def test_biases_shift_draws_and_not_logprobs():
    found = chosen([0.0, 1.0], Sampling(1.0), biases=[(0, 1.0)])
    assert abs(np.mean(np.asarray(found.token)) - 0.5) < 0.03
    assert {round(float(value), 4) for value in found.logprob} == {-1.3133, -0.3133}


def test_a_row_does_not_see_what_its_neighbours_ask_for():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 11)), jnp.float32)
    one = controls(2, Sampling(1.0))
    other = one._replace(top_p=jnp.array([1.0, 0.3]), temperature=jnp.array([1.0, 0.2]))
    zeros, alive = jnp.zeros(2, jnp.int32), jnp.ones(2, bool)
    a, b = CHOOSE(logits, one, zeros, alive), CHOOSE(logits, other, zeros, alive)
    assert a.token[0] == b.token[0] and a.logprob[0] == b.logprob[0]


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
