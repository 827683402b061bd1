"""Plots of preference against what outputs have: the paper's figure 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plot_preference(facet: Mapping[str, Any], of: str, model: str, path: Path) -> None:
    """Draws how often a model's outputs are preferred by how many more unique tokens they have.

    Args:
      facet: see `counts.over_instances`.
      of: what is counted, tokens or words.
      model: its name.
      path: an SVG, PNG or PDF by its ending.
    """
    parts = facet["bins"]
    x = [part["mean_difference"] for part in parts]
    y = [100 * part["preferred"] for part in parts]
    errors = [100 * (part["stderr"] or 0.0) for part in parts]
    figure, axes = _axes()
    axes.errorbar(x, y, yerr=errors, fmt="o-", ms=4, lw=1, capsize=2)
    axes.axhline(50, lw=0.8, ls="--", color="grey")
    axes.axvline(0, lw=0.8, ls="--", color="grey")
    axes.set_ylim(-3, 103)
    axes.set_xlabel(f"unique {of}, the model's output less the reference's")
    axes.set_ylabel("model's output preferred (%)")
    axes.set_title(f"{_safe(model)}: {said(facet)}", fontsize=9)
    _save(figure, path)


def plot_models(
    points: Sequence[Mapping[str, Any]], facet: Mapping[str, Any], of: str, path: Path
) -> None:
    """Draws models by the mean of unique tokens and win rate, with the straight line.

    Args:
      points: see `counts.over_models`, each with `name`.
      facet: the correlation; see `bias.correlate`.
      of: what is counted.
      path: as above.
    """
    x = np.array([point["unique"]["mean"] for point in points])
    y = np.array([point["win_rate"] for point in points])
    figure, axes = _axes()
    axes.scatter(x, y, s=14)
    for point, at, rate in zip(points, x, y, strict=True):
        axes.annotate(_safe(str(point["name"])), (at, rate), fontsize=5, alpha=0.7)
    if facet["r"] is not None:
        slope, start = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, slope * ends + start, lw=1, color="grey")
    axes.set_xlabel(f"unique {of} in an output, mean")
    axes.set_ylabel("win rate (%)")
    axes.set_title(said(facet), fontsize=9)
    _save(figure, path)


def said(facet: Mapping[str, Any]) -> str:
    """A correlation in words.

    >>> said({"r": 0.5, "r_interval": [0.4, 0.6], "r2": 0.25, "r2_interval": [0.16, 0.36], "n": 9})
    'r = 0.50 [0.40, 0.60], R2 = 0.25 [0.16, 0.36], n = 9'
    """
    if facet["r"] is None:
        return f"no correlation can be told of n = {facet['n']}"
    parts = [
        f"{name} = {facet[key]:.2f} [{facet[f'{key}_interval'][0]:.2f}, "
        f"{facet[f'{key}_interval'][1]:.2f}]"
        for name, key in (("r", "r"), ("R2", "r2"))
    ]
    return f"{', '.join(parts)}, n = {facet['n']:,}"


def _safe(name: str) -> str:
    """A name as text that is not taken for mathematics."""
    return name.encode("utf-8", "replace").decode().replace("$", r"\$")[:60]


def _axes() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    from tulu_jax.files import whole_file

    with whole_file(path, "wb") as stream:
        figure.savefig(stream, format=path.suffix.lstrip(".") or "svg", dpi=110)
    plt.close(figure)
