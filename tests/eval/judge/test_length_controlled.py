"""Length-controlled win rates: the published ones, and our own fit."""

import csv
import doctest
import math

import numpy as np
import pytest

from eval.judge import length_controlled
from eval.judge.length_controlled import (
    Weights,
    fit,
    length_term,
    probabilities,
    rate,
    read_difficulty,
    read_weights,
)
from tulu_jax.errors import DataError


def test_examples_hold():
    assert doctest.testmod(length_controlled).failed == 0


@pytest.fixture(scope="module")
def published(shared):
    folder = shared / "eval_data" / "alpaca_eval" / "lc"
    difficulty = read_difficulty(folder / "instruction_difficulty.csv")
    weights = read_weights(folder / "glm_weights.csv")
    return folder, weights, [difficulty[index] for index in range(805)]


def rows(path):
    with open(path) as stream:
        return list(csv.DictReader(stream))


def test_every_published_rate(published):
    folder, weights, difficulty = published
    compared = 0
    for row in rows(folder / "lc_win_rates.csv"):
        value, error = rate(weights[row["name"]], difficulty)
        assert value == pytest.approx(float(row["lc_win_rate"]), abs=1e-6, rel=0), row["name"]
        if row["lc_standard_error"]:
            assert error == pytest.approx(float(row["lc_standard_error"]), abs=1e-6, rel=0)
        compared += 1
    assert compared == 149


def test_the_ten_exceptions_are_as_far_off_as_is_known(published):
    folder, weights, difficulty = published
    exceptions = rows(folder / "lc_not_reproduced.csv")
    for row in exceptions:
        off = abs(rate(weights[row["name"]], difficulty)[0] - float(row["lc_win_rate"]))
        assert off == pytest.approx(float(row["abs_error"]), rel=0.01)
    assert len(exceptions) == 10


def test_models_against_each_other_add_up(published):
    _, weights, difficulty = published
    a, b = weights["tulu-2-dpo-70b"], weights["gpt4_1106_preview"]
    forth, _ = rate(a.minus(b), difficulty)
    back, _ = rate(b.minus(a), difficulty)
    assert forth + back == pytest.approx(100) and forth == rate(a, difficulty)[0]


def test_length_is_measured_by_its_own_spread():
    term = length_term([10, 20, 30], [20, 20, 20])
    assert term.tolist() == np.tanh([-1.0, 0.0, 1.0]).tolist()
    assert length_term([5, 5], [1, 1]).tolist() == [0, 0]
    assert length_term([5], [1]).tolist() == [0]


def test_the_fit_finds_what_made_the_preferences():
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=20_000)
    sizes = generator.integers(10, 500, (2, 20_000))
    true = Weights(-1.5, 0.8, 0.4)
    likely = probabilities(true, difficulty, length_term(*sizes))
    won = generator.random(20_000) < likely
    found = fit([2.0 if one else 1.0 for one in won], *sizes, difficulty)
    assert [found.length, found.difficulty, found.baseline] == pytest.approx(
        [-1.5, 0.8, 0.4], abs=0.08
    )
    exact = fit((1 + likely).tolist(), *sizes, difficulty)
    assert [exact.length, exact.difficulty, exact.baseline] == pytest.approx(
        [-1.5, 0.8, 0.4], abs=0.002
    )


def test_the_fit_takes_what_has_no_verdict_and_what_always_wins():
    sizes = ([10, 20, 30, 40], [40, 30, 20, 10])
    whole = fit([2, None, 1, 0], *sizes)
    assert whole.difficulty == 0 and math.isfinite(whole.length)
    always = fit([2] * 4, *sizes)
    assert 0.5 < always.baseline < 5 and rate(always, [0.0] * 4)[0] > 60
    with pytest.raises(DataError, match="length cannot be controlled for - got no preference"):
        fit([None, None], [1, 2], [3, 4])


def test_a_verbose_model_loses_when_length_is_controlled_for():
    generator = np.random.default_rng(1)
    reference = generator.integers(100, 300, 800)
    output = reference + generator.integers(-150, 450, 800)
    won = np.where(output > reference, 2.0, 1.0)
    raw = 100 * (won - 1).mean()
    controlled, _ = rate(fit(won.tolist(), reference, output), [0.0] * 800)
    assert raw > 65 and controlled < raw - 15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,a\nm,1\n", "table lacks a column - got name, a .* expected length or np.tanh"),
        ("name,length,instruction_difficulty,baseline\nm,1,2\n", "another number of columns"),
        ("name,length,instruction_difficulty,baseline\nm,1,x,3\n", "cell is no number - got 'x'"),
        ("name,length,instruction_difficulty,baseline\nm,1,nan,3\n", "cell is no number"),
        (
            "name,length,instruction_difficulty,baseline\nm,1,2,3\nm,1,2,3\n",
            "there twice - got 'm'",
        ),
    ],
)
def test_weights_that_cannot_be_read_are_told(tmp_path, text, message):
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_weights(tmp_path / "w.csv")


def test_the_packages_own_columns_are_read(tmp_path):
    path = tmp_path / "w.csv"
    path.write_text(
        ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\n"
        "m,-1.5,0.5,0.25\n"
    )
    assert read_weights(path) == {"m": Weights(-1.5, 0.5, 0.25)}
    path.write_text(",instruction_difficulty\n0,1.5\n1,-2\n")
    assert read_difficulty(path) == {0: 1.5, 1: -2.0}


@pytest.mark.parametrize("index", ["0", "-1", "0.5"])
def test_difficulties_have_an_index_of_their_own(tmp_path, index):
    (tmp_path / "d.csv").write_text(f"index,instruction_difficulty\n0,1\n{index},2\n")
    with pytest.raises(DataError, match=rf"index is none, or there twice - got {index}"):
        read_difficulty(tmp_path / "d.csv")
