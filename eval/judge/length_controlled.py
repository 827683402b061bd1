r"""AlpacaEval 2's length-controlled win rate: given weights, or a fit of our own.

The log-odds that a model's output is preferred are a sum of three terms: how much shorter the
reference's output is than the model's, `tanh(D / s)`; how difficult the instruction is; and a
constant. The length-controlled rate is what they give where no output is longer (D = 0).

The package's own fit needs judgements of two models that play with length, which are on the hub
only. `fit` is done without them and is **another measure**: its results have a name of their own.

Source: Dubois et al. (arXiv 2404.04475);
tatsu-lab/alpaca_eval:src/alpaca_eval/metrics/glm_winrate.py@cd543a14.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.harness import data
from eval.judge.winrate import share
from tulu_jax.errors import DataError

Floats = NDArray[np.float64]
OWN = "length_controlled_winrate_own_fit"
"""The name of what `fit` gives."""
PUBLISHED = "length_controlled_winrate"
RIDGE = 1.0
"""Penalty of the squared weights, that a model which always wins has finite ones."""
STEPS = 100
COLUMNS = {
    "length": ("length", "np.tanh(std_delta_len)"),
    "difficulty": ("instruction_difficulty",),
    "baseline": ("baseline", "not_gamed_baseline.astype(float)"),
}
"""A weight's column, here and in the package's file."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A model's three coefficients; those of the reference are 0."""

    length: float
    difficulty: float
    baseline: float

    def minus(self, other: Weights) -> Weights:
        """The coefficients of this model against another one."""
        return Weights(
            self.length - other.length,
            self.difficulty - other.difficulty,
            self.baseline - other.baseline,
        )


def probabilities(weights: Weights, difficulty: ArrayLike, length: ArrayLike = 0.0) -> Floats:
    """How likely the model's output is preferred on each instruction, 0 to 1.

    Args:
      weights: of the model, or of its difference from another.
      difficulty: of each instruction.
      length: `length_term` of each; 0 controls for length.
    """
    hard, long = np.asarray(difficulty, float), np.asarray(length, float)
    odds = weights.baseline + weights.difficulty * hard + weights.length * long
    return np.exp(-np.logaddexp(0.0, -odds))


def rate(weights: Weights, difficulty: ArrayLike) -> tuple[float, float]:
    """The length-controlled win rate in per cent, and its standard error over instructions.

    >>> rate(Weights(0, 0, 0), [0.0, 1.0])
    (50.0, 0.0)
    """
    found = probabilities(weights, difficulty)
    error = found.std(ddof=1) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return 100 * float(found.mean()), 100 * float(error)


def length_term(reference: ArrayLike, output: ArrayLike) -> Floats:
    """`tanh(D / s)` of characters: D the reference's less the model's, s the spread of D.

    All 0 where every difference is the same.
    """
    difference = np.asarray(reference, float) - np.asarray(output, float)
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros(len(difference))


def fit(
    preferences: Sequence[float | None],
    reference: ArrayLike,
    output: ArrayLike,
    difficulty: ArrayLike | None = None,
) -> Weights:
    """The weights that make a model's preferences likeliest; our own fit, see the module.

    The spread of lengths is that of all instructions, also those without a verdict.

    Args:
      preferences: of each instruction, 1 to 2, or None without a verdict.
      reference: characters of the reference's output on each.
      output: likewise of the model's.
      difficulty: of each; without it the weight of difficulty is 0.

    Raises:
      DataError: no preference.
    """
    hard = np.zeros(len(preferences)) if difficulty is None else np.asarray(difficulty, float)
    features = np.stack([length_term(reference, output), hard, np.ones(len(preferences))], axis=1)
    shares = [share(one) for one in preferences]
    judged = np.array([one is not None for one in shares], bool)
    wins = np.array([one for one in shares if one is not None], float)
    if not judged.any():
        raise DataError("length cannot be controlled for", got="no preference")
    length, hardness, baseline = _newton(features[judged], wins)
    return Weights(float(length), float(hardness), float(baseline))


def _newton(features: Floats, wins: Floats) -> Floats:
    """The ridge-penalised logistic regression of shares on features."""
    weights = np.zeros(features.shape[1])
    for _ in range(STEPS):
        likely = np.exp(-np.logaddexp(0.0, -features @ weights))
        slope = features.T @ (wins - likely) - RIDGE * weights
        spread = likely * (1 - likely)
        curve = (features * spread[:, None]).T @ features + RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curve, slope)
        weights = weights + step * min(1.0, 5.0 / max(1e-300, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10:
            break
    return weights


def read_difficulty(path: Path) -> dict[int, float]:
    """Difficulty by the instruction's place among AlpacaEval's, from its CSV.

    Raises:
      DataError: the file is missing or damaged.
    """
    header, rows = _table(path)
    places = _columns(header, ("index",), COLUMNS["difficulty"], at=path)
    found: dict[int, float] = {}
    for number, row in enumerate(rows, 2):
        index, value = (_number(row[place], f"{path} line {number}") for place in places)
        if index < 0 or index != int(index) or int(index) in found:
            raise DataError(
                "index is none, or there twice", got=row[places[0]], at=f"{path} line {number}",
                expected="whole numbers from 0",
            )  # fmt: skip
        found[int(index)] = value
    return found


def read_weights(path: Path) -> dict[str, Weights]:
    """Weights by model, from the package's CSV or one with plainer columns.

    Raises:
      DataError: the file is missing or damaged, or has a model twice.
    """
    header, rows = _table(path)
    places = _columns(header, ("name", ""), *COLUMNS.values(), at=path)
    found: dict[str, Weights] = {}
    for number, row in enumerate(rows, 2):
        name, values = row[places[0]], [row[place] for place in places[1:]]
        if name in found:
            raise DataError("model is there twice", got=repr(name), at=f"{path} line {number}")
        found[name] = Weights(*(_number(value, f"{path} line {number}") for value in values))
    return found


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    header, *rows = data.read_csv(path, columns=None, origin=data.OWN)
    return header, rows


def _columns(header: Sequence[str], *wanted: Sequence[str], at: Path) -> list[int]:
    places = []
    for names in wanted:
        place = next((header.index(name) for name in names if name in header), None)
        place = 0 if place is None and names == ("index",) and header[:1] == [""] else place
        if place is None:
            raise DataError(
                "table lacks a column", got=", ".join(header), at=at, expected=" or ".join(names)
            )
        places.append(place)
    return places


def _number(text: str, at: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError("cell is no number", got=repr(text[:40]), at=at)
    return value
