"""How long outputs are, and how many different words or tokens they have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.judge import bias
from eval.judge.winrate import average_length, share


@dataclasses.dataclass(frozen=True)
class Count:
    """Of one output. `unique` are different tokens, or words where nothing tokenizes."""

    chars: int
    words: int
    unique: int

    @classmethod
    def of(cls, text: str, unique: int | None = None) -> Count:
        """Of a text; its different words where no other number of `unique` is given.

        >>> Count.of("to be or not to be")
        Count(chars=18, words=6, unique=4)
        """
        words = text.split()
        return cls(len(text), len(words), len(set(words)) if unique is None else unique)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A judged pair, as far as numbers go."""

    preference: float | None
    reference: Count
    output: Count
    first: tuple[float, ...] = ()
    """For each order that it was judged in, which output shown was better, 1 to 2."""


FACETS = ("unique", "words", "chars")


def lengths(judged: Sequence[Judged]) -> dict[str, Any]:
    """Mean, median and spread of the lengths of outputs, and win rates of longer and shorter ones.

    `longer` and `shorter` than the reference's output, in characters; in per cent.
    """
    found: dict[str, Any] = {}
    for name in FACETS:
        mine = np.array([getattr(one.output, name) for one in judged], float)
        theirs = np.array([getattr(one.reference, name) for one in judged], float)
        found[name] = {
            "mean": float(mine.mean()),
            "median": float(np.median(mine)),
            "stdev": float(mine.std(ddof=1)) if len(mine) > 1 else None,
            "reference_mean": float(theirs.mean()),
        }
    sides: dict[str, list[float]] = {"longer": [], "shorter": []}
    for one in judged:
        won, more = share(one.preference), one.output.chars - one.reference.chars
        if won is not None and more:
            sides["longer" if more > 0 else "shorter"].append(won)
    for name, wins in sides.items():
        rate = 100 * sum(wins) / len(wins) if wins else None
        found[name] = {"n": len(wins), "win_rate": rate}
    return found


def over_instances(judged: Sequence[Judged], facets: Sequence[str] = FACETS) -> dict[str, Any]:
    """Preference against the difference of what outputs have, over one model's instances.

    For each facet see `bias.correlate` and `bias.bins`; differences are the model's less the
    reference's.
    """
    found: dict[str, Any] = {}
    rows = [(one, won) for one in judged if (won := share(one.preference)) is not None]
    for name in facets:
        more = [float(getattr(one.output, name) - getattr(one.reference, name)) for one, _ in rows]
        wins = [won for _, won in rows]
        found[name] = {**bias.correlate(more, wins), "bins": bias.bins(more, wins) if rows else []}
    return found


def over_models(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Win rate against the mean of what outputs have, over models: the paper's figure 2.

    Args:
      points: of each model `win_rate`, and by facet `mean` and `difference` (from the reference).

    Returns: for each facet `linear`, `log` (of the mean) and `difference`; see `bias.correlate`.
    """
    rates = [point["win_rate"] for point in points]
    found: dict[str, Any] = {}
    for name in FACETS:
        means = [point[name]["mean"] for point in points]
        logs = np.log(np.maximum(means, 1e-9)) if means else np.zeros(0)
        found[name] = {
            "linear": bias.correlate(means, rates),
            "log": bias.correlate(logs, rates),
            "difference": bias.correlate([point[name]["difference"] for point in points], rates),
        }
    return found


def point_of(win_rate: float, judged: Sequence[Judged]) -> dict[str, Any]:
    """A model as `over_models` takes it."""
    found: dict[str, Any] = {"win_rate": win_rate}
    for name in FACETS:
        mine = [getattr(one.output, name) for one in judged]
        theirs = [getattr(one.reference, name) for one in judged]
        own = sum(mine) / len(mine)
        found[name] = {"mean": own, "difference": own - sum(theirs) / len(theirs)}
    return found


def avg_length(judged: Sequence[Judged]) -> int | None:
    """The package's `avg_length`: characters of the model's outputs, all of them."""
    return average_length([one.output.chars for one in judged])
