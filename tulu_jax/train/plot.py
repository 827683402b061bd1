"""The loss plot of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot_losses(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws training loss, held-out loss by dataset and learning rate over steps, as a PNG.

    Where tasks were asked their scores come between.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    train = [row for row in rows if "loss" in row]
    heights = (3, 2, 1) if any("eval" in row for row in rows) else (3, 1)
    figure, (losses, *scores, rates) = plt.subplots(
        len(heights), 1, figsize=(8, 2 + sum(heights)), sharex=True, height_ratios=heights,
        layout="constrained",
    )  # fmt: skip
    losses.plot([r["step"] for r in train], [r["loss"] for r in train], lw=1, label="training")
    if any("nll" in row for row in train):
        # The loss has terms, those held out have none.
        apart = [row for row in train if "nll" in row]
        nll = [row["nll"] for row in apart]
        losses.plot([row["step"] for row in apart], nll, lw=1, label="training, nll alone")
    _plot_group(losses, rows, "heldout", "held out: ")
    losses.set_ylabel("loss (nats per loss token)")
    for axes in scores:
        _plot_group(axes, rows, "eval")
        axes.set_ylabel("score of tasks")
    rates.plot([r["step"] for r in train], [r["learning_rate"] for r in train], lw=1)
    rates.set_ylabel("learning rate")
    rates.set_xlabel("step")
    for axes in (losses, *scores):
        axes.legend()
    for axes in (losses, *scores, rates):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_group(axes: Any, rows: list[dict[str, Any]], group: str, before: str = "") -> None:
    """Draws the values that rows have below `group`, a line for each name."""
    found = [(row["step"], row[group]) for row in rows if group in row]
    for name in sorted({name for _, values in found for name in values}):
        points = [(step, values[name]) for step, values in found if name in values]
        axes.plot(*zip(*points, strict=True), marker="o", ms=3, label=f"{before}{name}")
