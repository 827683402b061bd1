"""Win rates of preferences, as the alpaca_eval package computes them.

A preference is 1 where the reference's output is better and 2 where the model's is; between them it
says how likely that is, and 1.5, or 0 in older files, is a draw. None is no verdict.

Source: tatsu-lab/alpaca_eval:src/alpaca_eval/metrics/{winrate,helpers}.py@cd543a14.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eval.harness.statistics import mean, standard_error

Preference = float | None


def share(preference: Preference) -> float | None:
    """How much of a win it is, 0 to 1; None where it is no preference.

    >>> share(2), share(1), share(0), share(1.5), share(1.25), share(None), share(3)
    (1.0, 0.0, 0.5, 0.5, 0.25, None, None)
    """
    if preference is None or math.isnan(preference):
        return None
    if preference == 0:
        return 0.5
    return preference - 1.0 if 1 <= preference <= 2 else None


def win_rate(preferences: Sequence[Preference]) -> dict[str, Any]:
    """Win rate in per cent with its standard error, and counts, by the package's names.

    What is no preference is in none of them. `discrete_win_rate` takes what is between 1 and 2 for
    the nearer one.

    >>> found = win_rate([2, 2, 1, 0, None])
    >>> found["win_rate"], found["n_wins"], found["n_draws"], found["n_total"]
    (62.5, 2, 1, 4)
    """
    shares = [found for one in preferences if (found := share(one)) is not None]
    wins = sum(one > 0.5 for one in shares)
    losses = sum(one < 0.5 for one in shares)
    draws = len(shares) - wins - losses
    return {
        "win_rate": 100 * mean(shares),
        "standard_error": 100 * standard_error(shares),
        "n_wins": wins,
        "n_wins_base": losses,
        "n_draws": draws,
        "n_total": len(shares),
        "discrete_win_rate": 100 * (wins + draws / 2) / len(shares) if shares else math.nan,
    }


def average_length(outputs: Sequence[int]) -> int | None:
    """The mean of characters, cut to a whole number; None of no output."""
    return sum(outputs) // len(outputs) if outputs else None
