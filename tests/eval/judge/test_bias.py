"""Correlations, intervals, position and diversity, each beside another reckoning."""

import doctest
import gzip
import itertools
import json
import random
from collections import defaultdict

import numpy as np
import pytest
from scipy import stats

from eval.judge import bias, counts
from eval.judge.counts import Count, Judged
from eval.judge.winrate import win_rate


@pytest.mark.parametrize("module", [bias, counts], ids=lambda module: module.__name__)
def test_examples_hold(module):
    found = doctest.testmod(module)
    assert found.failed == 0 and found.attempted


def test_a_correlation_is_scipys_and_its_interval_holds_the_truth():
    generator = np.random.default_rng(2)
    x = generator.normal(size=400)
    y = 0.6 * x + 0.8 * generator.normal(size=400)
    found = bias.correlate(x, y)
    assert found["r"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["r2"] == pytest.approx(stats.linregress(x, y).rvalue ** 2)
    theirs = stats.pearsonr(x, y).confidence_interval(0.95)
    assert found["r_interval"] == pytest.approx([theirs.low, theirs.high], abs=0.03)
    assert found["r2_interval"][0] < 0.36 < found["r2_interval"][1]
    assert bias.correlate(x, y) == found


@pytest.mark.parametrize("series", [([1, 2], [1, 2]), ([3, 3, 3], [1, 2, 3]), ([], [])])
def test_without_spread_there_is_no_correlation(series):
    found = bias.correlate(*series)
    assert found["r"] is found["r2"] is found["r_interval"] is None
    assert found["n"] == len(series[0])


def test_bins_hold_every_instance_once_and_no_difference_twice():
    generator = np.random.default_rng(3)
    x = generator.integers(-5, 6, 97).tolist()
    y = generator.integers(0, 2, 97).astype(float).tolist()
    parts = bias.bins(x, y)
    assert sum(part["n"] for part in parts) == 97
    assert all(a["most"] < b["least"] for a, b in itertools.pairwise(parts))
    for part in parts:
        mine = [b for a, b in zip(x, y, strict=True) if part["least"] <= a <= part["most"]]
        assert part["n"] == len(mine) and part["preferred"] == pytest.approx(np.mean(mine))
    assert len(bias.bins([1.0] * 30, [0.5] * 30)) == 1


def test_position():
    found = bias.position([1.0] * 30 + [2.0] * 10 + [1.5] * 2)
    assert found["first_preferred"] == pytest.approx(31 / 42) and found["n"] == 42
    assert found["p"] == pytest.approx(stats.binomtest(30, 40).pvalue)
    assert bias.position([]) == {"first_preferred": None, "stderr": None, "n": 0, "p": None}


def test_both_orders():
    # The same output wins where it is first in one order and second in the other.
    found = bias.orders([(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (2.0, 2.0), (1.5, 1.5), (1.5, 1.0)])
    assert found == {"same_winner": 0.5, "always_first": 1, "always_second": 1, "n": 6}


WORDS = ("bread", "rivers", "the", "moon", "violins", "taxes", "bees", "is", "glass", "of", "tea")


@pytest.mark.parametrize(
    ("outputs", "low"),
    [
        ([" ".join(random.Random(n).choices(WORDS, k=20)) for n in range(40)], False),
        (["I win."] * 40, True),
        ([f"As your judge would say, this answer is the best one there can be ({n})."
          for n in range(40)], True),
        ([f"yes {n % 3}" for n in range(40)], True),
        (["I win."] * 9, False),
        ([], False),
    ],
)  # fmt: skip
def test_low_diversity_is_flagged(outputs, low):
    assert bias.diversity(outputs)["low"] is low


def test_real_outputs_are_diverse(shared):
    folder = shared / "eval_data" / "alpaca_farm"
    for name in ("gpt-3.5-turbo-0301_model_outputs.json", "text_davinci_003_model_outputs.json"):
        rows = json.loads((folder / name).read_text())
        found = bias.diversity([row["output"] for row in rows])
        assert not found["low"] and found["distinct"] > 0.9 and found["overlap"] < 0.02


def test_lengths_and_who_wins_by_them():
    def judged(preference, reference, output):
        return Judged(preference, Count.of("a " * reference), Count.of("b " * output))

    found = counts.lengths([judged(2, 5, 9), judged(2, 5, 9), judged(1, 5, 9), judged(2, 5, 1)])
    assert found["longer"] == {"n": 3, "win_rate": pytest.approx(200 / 3)}
    assert found["shorter"] == {"n": 1, "win_rate": 100.0}
    assert found["words"] == {"mean": 7.0, "median": 9.0, "stdev": 4.0, "reference_mean": 5.0}
    alone = counts.lengths([judged(None, 5, 5)])
    assert alone["longer"] == {"n": 0, "win_rate": None} and alone["words"]["stdev"] is None


@pytest.fixture(scope="module")
def judged(shared):
    """The models whose judgements are their own, as numbers."""
    found = defaultdict(list)
    path = shared / "eval_data" / "alpaca_eval" / "gpt4_preferences.jsonl.gz"
    with gzip.open(path, "rt") as stream:
        for row in map(json.loads, stream):
            sides = [
                Count(
                    *(row[f"output_{side}_{name}"] for name in ("chars", "words", "unique_words"))
                )
                for side in (1, 2)
            ]
            found[row["model"]].append(Judged(row["preference"], *sides))
    without = ("falcon-7b-instruct", "mistral-orpo-beta")  # another's judgements; unpublished
    return {name: rows for name, rows in found.items() if name not in without}


def test_gpt4_follows_unique_words_over_models(judged):
    points = [
        counts.point_of(win_rate([one.preference for one in rows])["win_rate"], rows)
        for rows in judged.values()
    ]
    found = counts.over_models(points)["unique"]
    assert found["linear"]["n"] == 41 and found["linear"]["r2"] == pytest.approx(0.53, abs=0.005)
    low, high = found["linear"]["r2_interval"]
    assert low < 0.53 < high and high - low < 0.6
    assert found["log"]["r2"] > found["linear"]["r2"]


def test_gpt4_follows_unique_words_over_instances(judged):
    rows = judged["alpaca-7b"] if "alpaca-7b" in judged else next(iter(judged.values()))
    found = counts.over_instances(rows)["unique"]
    x = [one.output.unique - one.reference.unique for one in rows if one.preference is not None]
    y = [one.preference or 1.5 for one in rows if one.preference is not None]
    assert found["r"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["bins"][-1]["preferred"] > found["bins"][0]["preferred"]
