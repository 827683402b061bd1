"""How a judge is biased: to many different words, to length, to what it is shown first.

The paper's finding is that GPT-4 prefers outputs with more unique tokens (section 5.2, figure 2 and
appendix H): over models, its win rates follow their mean number with r = 0.96. Here that is
measured over one model's instances, and over models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.harness.statistics import binomial_p, mean, standard_error

Floats = NDArray[np.float64]
RESAMPLES = 2_000
LEVELS = (2.5, 97.5)
"""Percentiles of an interval of 95 %."""
BINS = 10
FEW = 10
"""Of fewer outputs nothing is said about how much they are alike."""
LEAST_DISTINCT, MOST_OVERLAP = 0.5, 0.3
"""Outputs of a model that answers what it is asked are nearly all distinct, and two of them share
about 1 % of their runs of three words."""
WORDS = 3


def correlate(x: ArrayLike, y: ArrayLike, *, seed: int = 0) -> dict[str, Any]:
    """Pearson's r of two series and R2 of the straight line, each with an interval of 95 %.

    Intervals are the bootstrap's percentiles. All are None where a series has no spread, or there
    are fewer than three pairs.

    >>> found = correlate([1, 2, 3, 4], [2, 4, 6, 8])
    >>> round(found["r"], 6), round(found["r2"], 6), found["n"]
    (1.0, 1.0, 4)
    """
    first, second = np.asarray(x, float), np.asarray(y, float)
    count = len(first)
    r = float(_pearson(first, second, np.ones((1, count)))[0]) if count > 2 else math.nan
    nothing = {"r": None, "r_interval": None, "r2": None, "r2_interval": None, "n": count}
    if math.isnan(r):
        return nothing
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    drawn += count * np.arange(RESAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)
    found = _pearson(first, second, times)
    found = found[np.isfinite(found)]
    return {
        "r": r,
        "r_interval": np.percentile(found, LEVELS).tolist(),
        "r2": r**2,
        "r2_interval": np.percentile(found**2, LEVELS).tolist(),
        "n": count,
    }


def _pearson(x: Floats, y: Floats, times: ArrayLike) -> Floats:
    """r of every draw, of which `times` says how often it has each pair; NaN without spread."""
    x, y, times = x - x.mean(), y - y.mean(), np.asarray(times, float)
    features = np.stack([x, y, x * x, y * y, x * y, np.ones(len(x))], axis=1)
    sx, sy, sxx, syy, sxy, n = (times @ features).T
    spread_x, spread_y = sxx - sx**2 / n, syy - sy**2 / n
    least_x, least_y = 1e-12 * sxx, 1e-12 * syy  # what is left of the digits of a spread of 0
    flat = (spread_x <= least_x) | (spread_y <= least_y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flat, math.nan, (sxy - sx * sy / n) / np.sqrt(spread_x * spread_y))


def bins(differences: Sequence[float], shares: Sequence[float]) -> list[dict[str, Any]]:
    """How often the model's output is preferred, by how much more it has; tenths of the instances.

    Equal differences are never in two bins.
    """
    order = np.argsort(np.asarray(differences, float), kind="stable")
    x, y = np.asarray(differences, float)[order], np.asarray(shares, float)[order]
    edges = {round(len(x) * part / BINS) for part in range(1, BINS)}
    cuts = sorted({int(np.searchsorted(x, x[edge], "left")) for edge in edges if edge < len(x)})
    parts = [part for part in np.split(np.arange(len(x)), cuts) if len(part)]
    return [
        {
            "least": float(x[part[0]]),
            "most": float(x[part[-1]]),
            "mean_difference": float(x[part].mean()),
            "preferred": float(y[part].mean()),
            "stderr": _finite(standard_error(y[part])),
            "n": len(part),
        }
        for part in parts
    ]


def position(firsts: Sequence[float]) -> dict[str, Any]:
    """How often what is shown first is preferred.

    Args:
      firsts: of each reply, which output shown was better, 1 the first to 2 the second.

    Returns: `first_preferred` (0 to 1; 0.5 without bias) with `stderr`, `n`, and `p`, how likely
    chance alone is as far from half (replies that do not decide left out).
    """
    shares = [2 - choice for choice in firsts]
    won, lost = sum(one > 0.5 for one in shares), sum(one < 0.5 for one in shares)
    return {
        "first_preferred": _finite(mean(shares)),
        "stderr": _finite(standard_error(shares)),
        "n": len(shares),
        "p": binomial_p(won, lost) if shares else None,
    }


def orders(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """How often a judge that saw both orders prefers the same output in both.

    Args:
      pairs: of each pair which output shown was better in one order and in the other.
    """
    same = [((a > 1.5) != (b > 1.5)) if 1.5 not in (a, b) else a == b for a, b in pairs]
    first = sum(a < 1.5 and b < 1.5 for a, b in pairs)
    second = sum(a > 1.5 and b > 1.5 for a, b in pairs)
    return {
        "same_winner": _finite(mean([float(one) for one in same])),
        "always_first": first,
        "always_second": second,
        "n": len(pairs),
    }


def diversity(outputs: Sequence[str]) -> dict[str, Any]:
    """How different outputs are from each other.

    Returns: `distinct`, the share of different ones (case and blanks aside); `overlap`, the mean
    share of runs of three words that two outputs have in common; and `low`, whether they are more
    alike than answers to different instructions can be, so that a win rate says nothing.

    >>> diversity(["The same answer to all."] * 20)
    {'distinct': 0.05, 'overlap': 1.0, 'low': True}
    """
    texts = [" ".join(text.lower().split()) for text in outputs]
    runs = [_runs(text) for text in texts]
    count = len(texts)
    steps = [step for step in (1, count // 3, count // 2) if 0 < step < count]
    pairs = [(runs[i], runs[(i + step) % count]) for step in steps for i in range(count)]
    overlap = mean([len(a & b) / len(a | b) for a, b in pairs]) if pairs else 0.0
    distinct = len(set(texts)) / count if count else 1.0
    low = count >= FEW and (distinct < LEAST_DISTINCT or overlap > MOST_OVERLAP)
    return {"distinct": distinct, "overlap": overlap, "low": low}


def _runs(text: str) -> set[str]:
    words = text.split()
    if len(words) <= WORDS:
        return {text}
    return {" ".join(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
