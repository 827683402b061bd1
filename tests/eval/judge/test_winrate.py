"""Win rates: by hand, and those that were published."""

import csv
import doctest
import gzip
import json
import math
from collections import defaultdict

import pytest

from eval.judge import winrate
from eval.judge.winrate import win_rate


def test_examples_hold():
    assert doctest.testmod(winrate).failed == 0


def test_by_hand():
    found = win_rate([2, 1, 1.5, 0, 1.7, None, math.nan, 2.5])
    assert found["n_total"] == 5 and found["win_rate"] == pytest.approx(100 * 2.7 / 5)
    assert (found["n_wins"], found["n_wins_base"], found["n_draws"]) == (2, 1, 2)
    assert found["discrete_win_rate"] == 60
    shares = [1, 0, 0.5, 0.5, 0.7]
    spread = math.sqrt(sum((one - 0.54) ** 2 for one in shares) / 4)
    assert found["standard_error"] == pytest.approx(100 * spread / math.sqrt(5))


def test_without_a_verdict_there_is_no_rate():
    found = win_rate([None, None])
    assert found["n_total"] == 0 and math.isnan(found["win_rate"])


def test_every_published_rate(shared):
    folder = shared / "eval_data" / "alpaca_eval"
    preferences = defaultdict(list)
    with gzip.open(folder / "gpt4_preferences.jsonl.gz", "rt") as stream:
        for line in stream:
            row = json.loads(line)
            preferences[row["model"]].append((row["preference"], row["output_2_chars"]))
    with open(folder / "gpt4_leaderboard.csv") as stream:
        published = {row["name"]: row for row in csv.DictReader(stream) if row["win_rate"]}
    compared = set(published) & set(preferences)
    assert len(compared) >= 42
    for name in compared:
        found, row = win_rate([one for one, _ in preferences[name]]), published[name]
        assert found["win_rate"] == pytest.approx(float(row["win_rate"]), abs=1e-12, rel=0)
        error = float(row["standard_error"])
        assert found["standard_error"] == pytest.approx(error, abs=1e-12, rel=0)
        for count in ("n_wins", "n_wins_base", "n_draws", "n_total"):
            assert found[count] == int(float(row[count])), (name, count)
        if not row["note"]:
            sizes = [size for _, size in preferences[name]]
            assert winrate.average_length(sizes) == int(float(row["avg_length"]))
