"""The loss plot of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot_losses(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws training loss, held-out loss by dataset and learning rate over steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    train = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if "heldout" in row]
    figure, (losses, rates) = plt.subplots(
        2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    losses.plot([r["step"] for r in train], [r["loss"] for r in train], lw=1, label="training")
    for name in sorted({name for row in held_out for name in row["heldout"]}):
        points = [(r["step"], r["heldout"][name]) for r in held_out if name in r["heldout"]]
        losses.plot(*zip(*points, strict=True), marker="o", ms=3, label=f"held out: {name}")
    losses.set_ylabel("loss (nats per loss token)")
    losses.legend()
    losses.grid(alpha=0.3)
    rates.plot([r["step"] for r in train], [r["learning_rate"] for r in train], lw=1)
    rates.set_ylabel("learning rate")
    rates.set_xlabel("step")
    rates.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
