"""Statistics of scores: SciPy as the oracle, and examples worked by hand."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval.harness import statistics

TIGHT = {"rel": 1e-9, "abs": 1e-12}


def drawn(seed, count=60):
    generator = np.random.default_rng(seed)
    a = generator.random(count)
    return a, np.clip(a + generator.normal(0.05, 0.3, count), 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_mean_and_error_are_scipys(seed):
    a, b = drawn(seed)
    assert statistics.mean(a) == pytest.approx(np.mean(a), **TIGHT)
    assert statistics.standard_error(a) == pytest.approx(stats.sem(a), **TIGHT)
    difference, error = statistics.paired_difference(a, b)
    assert difference == pytest.approx(np.mean(b - a), **TIGHT)
    assert error == pytest.approx(stats.sem(b - a), **TIGHT)
    oracle = stats.ttest_rel(b, a)
    assert difference / error == pytest.approx(oracle.statistic, **TIGHT)


@pytest.mark.parametrize("seed", range(5))
def test_one_instance_a_cluster_is_the_usual_error(seed):
    a, _ = drawn(seed)
    one_each = [f"c{i}" for i in range(len(a))]
    assert statistics.standard_error(a, one_each) == pytest.approx(stats.sem(a), **TIGHT)


@pytest.mark.parametrize("seed", range(5))
def test_clustered_error_is_the_sandwich_of_least_squares(seed):
    """The intercept's robust variance, (X'X)^-1 (sum_c X_c' u_c u_c' X_c) (X'X)^-1, by matrices."""
    a, _ = drawn(seed)
    clusters = np.random.default_rng(seed).integers(0, 9, len(a))
    design = np.ones((len(a), 1))
    rest = (a - a.mean())[:, None]
    outer = (clusters[:, None] == clusters) * (rest @ rest.T)
    bread = np.linalg.inv(design.T @ design)
    groups = len(set(clusters.tolist()))
    variance = (bread @ design.T @ outer @ design @ bread)[0, 0] * groups / (groups - 1)
    found = statistics.standard_error(a, clusters.tolist())
    assert found == pytest.approx(math.sqrt(variance), **TIGHT)


def test_clusters_of_equal_size_are_scipys_error_of_their_means():
    a, _ = drawn(1)
    means = a.reshape(12, 5).mean(axis=1)
    found = statistics.standard_error(a, np.repeat(np.arange(12), 5).tolist())
    assert found == pytest.approx(stats.sem(means), **TIGHT)


def test_clusters_by_hand():
    # Mean 1/2; the clusters' sums of residuals are 1, -1/2, -1/2: sqrt(3/2 x 3/2) / 4.
    found = statistics.standard_error([1, 1, 0, 0], ["a", "a", "b", "c"])
    assert found == pytest.approx(1.5 / 4, **TIGHT)


@given(st.integers(0, 700), st.integers(0, 700))
@settings(max_examples=150, deadline=None)
def test_binomial_is_scipys(heads, tails):
    if heads + tails == 0:
        assert statistics.binomial_p(heads, tails) == 1.0
        return
    oracle = stats.binomtest(heads, heads + tails, 0.5).pvalue
    assert statistics.binomial_p(heads, tails) == pytest.approx(oracle, rel=1e-9)


def test_binomial_of_all_of_mmlu():
    oracle = stats.binomtest(1100, 2300, 0.5).pvalue
    assert statistics.binomial_p(1100, 1200) == pytest.approx(oracle, rel=1e-9)
    assert statistics.binomial_p(14042, 0) == 0.0  # 2^-14041 is no float


def test_mcnemar_counts_those_that_differ():
    a = [0] * 10 + [1] * 4 + [1] * 50 + [0] * 30
    b = [1] * 10 + [0] * 4 + [1] * 50 + [0] * 30
    oracle = stats.binomtest(4, 14, 0.5).pvalue
    assert statistics.mcnemar(a, b) == pytest.approx(oracle, rel=1e-9)
    assert statistics.mcnemar(b, a) == statistics.mcnemar(a, b)
    # By hand: 3 better, 1 worse: 2 (1 + 4) / 16.
    assert statistics.mcnemar([0, 0, 0, 1], [1, 1, 1, 0]) == 0.625
    assert statistics.mcnemar([1, 0], [1, 0]) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_bootstrap_draws_what_scipy_draws(seed):
    a, b = drawn(seed, count=41)
    oracle = stats.bootstrap(
        (b - a,), np.mean, n_resamples=999, method="percentile", rng=np.random.default_rng(seed)
    )
    found = statistics.bootstrap_means(b - a, resamples=999, seed=seed)
    np.testing.assert_allclose(found, oracle.bootstrap_distribution, rtol=1e-9, atol=1e-12)
    centred = oracle.bootstrap_distribution - np.mean(b - a)
    extreme = (np.abs(centred) >= abs(np.mean(b - a))).sum()
    p = statistics.bootstrap_p(a, b, resamples=999, seed=seed)
    assert p == pytest.approx((1 + extreme) / 1000, rel=1e-9)


def test_blocks_of_the_bootstrap_draw_the_same(monkeypatch):
    a, _ = drawn(3, count=41)
    clusters = [i // 3 for i in range(41)]
    whole = statistics.bootstrap_means(a, clusters, resamples=101, seed=7)
    monkeypatch.setattr(statistics, "_BLOCK", 90)
    np.testing.assert_array_equal(
        statistics.bootstrap_means(a, clusters, resamples=101, seed=7), whole
    )


def test_bootstrap_finds_what_is_there_and_nothing_else():
    a, b = drawn(0, count=300)
    assert statistics.bootstrap_p(a, a + 0.2) < 0.001
    assert statistics.bootstrap_p(a, a) == 1.0
    noise = np.random.default_rng(1).normal(0, 1, 300)
    p = statistics.bootstrap_p(noise, noise + np.random.default_rng(2).normal(0, 1, 300))
    t = stats.ttest_1samp(np.random.default_rng(2).normal(0, 1, 300), 0).pvalue
    assert p == pytest.approx(t, abs=0.03)
    assert statistics.bootstrap_p(a, b) == statistics.bootstrap_p(a, b)


def test_bootstrap_of_clusters_draws_clusters():
    """Ten instances that are one told ten times weigh as one."""
    scores = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], 10)
    clusters = np.repeat(np.arange(6), 10).tolist()
    spread = statistics.bootstrap_means(scores, clusters, seed=1).std(ddof=1)
    expected = math.sqrt(np.var(scores) / 6)  # the bootstrap's spread divides by the clusters
    assert spread == pytest.approx(expected, rel=0.03)
    nothing = np.zeros(60)
    assert statistics.bootstrap_p(nothing, scores) < statistics.bootstrap_p(
        nothing, scores, clusters
    )


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.96, 3.0, 8.0])
def test_normal_p_is_scipys(ratio):
    oracle = 2 * stats.norm.sf(ratio)
    assert statistics.difference_p(-ratio * 0.03, 0.03) == pytest.approx(oracle, rel=1e-9)


def test_differences_without_spread():
    assert statistics.difference_p(0.0, 0.0) == 1.0
    assert statistics.difference_p(0.1, 0.0) == 0.0
    assert math.isnan(statistics.difference_p(0.1, math.nan))


def test_holm_by_hand():
    # Sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, none smaller than the one before.
    found = statistics.holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02], **TIGHT)
    assert statistics.holm([0.6, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []
    found = statistics.holm([math.nan, 0.02])
    assert math.isnan(found[0]) and found[1] == 0.02


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_as_its_steps_do(p_values):
    """The smallest against alpha / m, the next against alpha / (m - 1), until one holds."""
    adjusted = statistics.holm(p_values)
    for alpha in (0.01, 0.05, 0.2):
        rejected = set()
        for left, i in zip(
            range(len(p_values), 0, -1), np.argsort(p_values, kind="stable"), strict=True
        ):
            if p_values[i] * left > alpha:
                break
            rejected.add(i)
        assert rejected == {i for i, p in enumerate(adjusted) if p <= alpha}


@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.9, 0.01), (0.5, 0.1)])
def test_detectable_effect_is_scipys(power, alpha):
    oracle = 0.035 * (stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    found = statistics.detectable_effect(0.035, power=power, alpha=alpha)
    assert found == pytest.approx(oracle, rel=1e-9)
    assert math.isnan(statistics.detectable_effect(0.0))
    assert math.isnan(statistics.detectable_effect(math.nan))


def test_the_set_tied_with_the_best():
    assert statistics.tied_with_best("a", {}) == {"a"}
    # 0.02 alone is beyond 5 %; of three, the smallest must be below 0.05 / 3.
    assert statistics.tied_with_best("a", {"b": 0.02}) == {"a"}
    assert statistics.tied_with_best("a", {"b": 0.02, "c": 0.5, "d": 0.9}) == {"a", "b", "c", "d"}
    assert statistics.tied_with_best("a", {"b": math.nan, "c": 0.0}) == {"a", "b"}


@pytest.mark.parametrize(
    ("correct", "samples", "k"), [(0, 5, 2), (1, 4, 2), (3, 20, 10), (5, 5, 1)]
)
def test_pass_at_k_is_the_hypergeometric_chance(correct, samples, k):
    oracle = 1 - stats.hypergeom.pmf(0, samples, correct, k)
    assert statistics.pass_at_k(correct, samples, k) == pytest.approx(oracle, **TIGHT)


def test_its_examples():
    found = doctest.testmod(statistics)
    assert found.failed == 0 and found.attempted > 8


def test_too_little_to_tell():
    assert math.isnan(statistics.mean([]))
    assert math.isnan(statistics.standard_error([]))
    assert math.isnan(statistics.standard_error([1.0]))
    assert math.isnan(statistics.standard_error([0.0, 1.0], ["a", "a"]))
    assert math.isnan(statistics.bootstrap_p([0.0], [1.0]))
    assert math.isnan(statistics.bootstrap_p([0.0, 1.0], [1.0, 1.0], ["a", "a"]))


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match="scores are one finite number an instance"):
        statistics.mean([0.5, math.nan])
    with pytest.raises(ValueError, match="scores are one finite number an instance"):
        statistics.standard_error([[0.5]])
    with pytest.raises(ValueError, match="pairs need equal numbers of scores, not 1 and 2"):
        statistics.paired_difference([1], [1, 0])
    with pytest.raises(ValueError, match="2 clusters for 3 scores"):
        statistics.standard_error([1, 0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="the McNemar test takes scores of 0 and 1"):
        statistics.mcnemar([0.5], [1])
    with pytest.raises(ValueError, match="pass@3 of 1 right in 2 samples"):
        statistics.pass_at_k(1, 2, 3)
