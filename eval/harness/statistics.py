"""Statistics of benchmark scores: errors, paired tests, and what a set of instances can tell.

Scores are float arrays of one value an instance; `clusters`, where given, names for each instance
the group it was drawn with (a TydiQA passage, a HumanEval problem): instances of a cluster resemble
each other, and counting them as independent makes errors too small.

Source of the clustered forms: Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), with
the factor G / (G - 1) of G clusters, so that one instance a cluster gives the usual error.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
"""How often the bootstrap draws."""

_BLOCK = 4_000_000
"""How many drawn numbers of the bootstrap are in memory at once."""


def mean(scores: ArrayLike) -> float:
    """The mean; NaN of no score.

    >>> mean([1, 0, 1, 1])
    0.75
    """
    values = _scores(scores)
    return float(values.mean()) if len(values) else math.nan


def standard_error(scores: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float:
    """The standard error of the mean; NaN with fewer than two instances or clusters.

    >>> standard_error([1, 0, 1, 1])
    0.25
    >>> standard_error([1, 1, 0, 0], clusters="aabb")  # two answers, each told twice
    0.5
    """
    values = _scores(scores)
    sums, _ = _cluster_sums(values - (values.mean() if len(values) else 0.0), clusters)
    if len(sums) < 2:
        return math.nan
    return math.sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 1)) / len(values)


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """The mean of `b - a` over instances, and its standard error.

    >>> paired_difference([0, 0, 1, 1], [1, 0, 1, 1])
    (0.25, 0.25)
    """
    difference = _difference(a, b)
    return mean(difference), standard_error(difference, clusters)


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """The two-sided p-value of the exact McNemar test, for scores of right or wrong.

    `a` and `b` are 0 or 1. Of the instances on which they differ, each is as likely better in `b`
    as in `a` when neither model is better: a binomial test of 1/2.

    >>> mcnemar([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1])  # 5 better, none worse: 2 / 2^5
    0.0625
    """
    difference = _difference(a, b)
    if not np.isin([_scores(a), _scores(b)], (0.0, 1.0)).all():
        raise ValueError("the McNemar test takes scores of 0 and 1")
    return binomial_p(int((difference > 0).sum()), int((difference < 0).sum()))


def binomial_p(heads: int, tails: int) -> float:
    """The two-sided p-value of so many heads and tails of a fair coin, exact to its last digit.

    >>> binomial_p(1, 3)  # 2 (1 + 4) / 16
    0.625
    """
    tosses, ways, total = heads + tails, 1, 0
    for k in range(min(heads, tails) + 1):
        total += ways
        ways = ways * (tosses - k) // (k + 1)
    return min(1.0, 2 * total / 2**tosses)


def bootstrap_means(
    scores: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The means of `resamples` draws with replacement of as many instances (or whole clusters)."""
    sums, sizes = _cluster_sums(_scores(scores), clusters)
    generator, count = np.random.default_rng(seed), len(sums)
    means, rows = [], max(1, _BLOCK // count)
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, count, (min(rows, resamples - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)


def bootstrap_p(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """The two-sided p-value of the paired bootstrap: how often chance differs as much as `b - a`.

    Chance is the spread of resampled mean differences about their own mean. The observed difference
    counts as one of the draws, so p is never 0. NaN with fewer than two instances or clusters.
    """
    difference = _difference(a, b)
    if len(_cluster_sums(difference, clusters)[0]) < 2:
        return math.nan
    observed = mean(difference)
    means = bootstrap_means(difference, clusters, resamples=resamples, seed=seed)
    # Draws of the same sum in another order differ in their last digits.
    as_large = np.abs(means - observed) >= abs(observed) - 1e-12 * max(1.0, abs(observed))
    return float((1 + as_large.sum()) / (1 + resamples))


def difference_p(difference: float, error: float) -> float:
    """The two-sided p-value of a difference with this standard error, taken as normal.

    A difference of 0 without spread is p = 1, any other without spread p = 0.
    """
    if math.isnan(difference) or math.isnan(error):
        return math.nan
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return math.erfc(abs(difference) / error / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for how many they are (Holm 1979), in their order; NaN stays and is
    not counted.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]  # 3 x 0.01, 2 x 0.03, and no smaller
    [0.03, 0.06, 0.06]
    """
    adjusted = [math.nan] * len(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = largest
    return adjusted


def detectable_effect(error: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that a two-sided test at `alpha` finds with this `power`.

    `error` is the standard error of the difference. NaN where that is 0 or not known: two models
    that never differed do not say how much they could.

    >>> round(detectable_effect(1.0), 4)
    2.8016
    """
    if not error > 0:
        return math.nan
    normal = NormalDist()
    return error * (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power))


def tied_with_best(best: str, p_values: Mapping[str, float], *, alpha: float = 0.05) -> set[str]:
    """The best and all whose difference from it could be chance.

    `p_values` are those of each other's difference from the best; Holm adjusts them. One that is
    not known (NaN) leaves its model in the set: nothing told the two apart.

    >>> sorted(tied_with_best("a", {"b": 0.2, "c": 0.001, "d": 0.03}))
    ['a', 'b', 'd']
    """
    names = list(p_values)
    adjusted = holm([p_values[name] for name in names])
    return {best} | {n for n, p in zip(names, adjusted, strict=True) if not p <= alpha}


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """The chance that one of `k` of these samples is right (Chen et al. 2021, eq. 1 and fig. 3).

    Rounded as openai/human-eval:human_eval/evaluation.py rounds it, which shows in the last bit.

    >>> pass_at_k(1, 4, 2)  # 3 of the 6 pairs hold the right one
    0.5
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {correct} right in {samples} samples")
    if samples - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - correct + 1, samples + 1))


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("scores are one finite number an instance")
    return values


def _difference(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    first, second = _scores(a), _scores(b)
    if len(first) != len(second):
        raise ValueError(f"pairs need equal numbers of scores, not {len(first)} and {len(second)}")
    return second - first


def _cluster_sums(
    values: NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of each cluster's values, and its size; without clusters each instance is one."""
    if clusters is None:
        return values, np.ones(len(values))
    if len(clusters) != len(values):
        raise ValueError(f"{len(clusters)} clusters for {len(values)} scores")
    numbers: dict[Hashable, int] = {}
    which = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], int)
    sums = np.bincount(which, weights=values, minlength=len(numbers)).astype(float)
    return sums, np.bincount(which, minlength=len(numbers)).astype(float)
