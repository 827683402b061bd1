"""What a run shows and keeps: log lines, progress bar, TensorBoard, W&B, metrics file, plot."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tulu_jax.console import WARNING, print_line
from tulu_jax.train.flight import Row
from tulu_jax.train.goodput import (
    Clock,
    Goodput,
    goodput_sentence,
    share_in_steps,
    step_time_summary,
)
from tulu_jax.train.metrics import MetricLog, Peak
from tulu_jax.train.optimizer import learning_rate_schedule
from tulu_jax.train.plot import plot_losses
from tulu_jax.train.run import Run
from tulu_jax.train.stopping import Stop

FEWEST_TIMED = 5
"""Steps, at least, over which a log line takes the mean of their times, once there are as many."""


class Reporter:
    """Collects step metrics between log steps and tells them everywhere; quiet off process 0."""

    def __init__(
        self, run: Run, console: Console, clock: Clock, *, first_step: int, peak: Peak
    ) -> None:
        """Opens the log files of the run folder."""
        self._run, self._console = run, console
        self._peak, self._clock = peak, clock
        self._main = jax.process_index() == 0
        self._metrics = MetricLog(run.folder, resume_step=first_step) if self._main else None
        self._writer = _open_tensorboard(run.folder, first_step) if self._main else None
        self._wandb = _open_wandb(run) if run.config.wandb and self._main else None
        self._goodput = Goodput(run.folder, clock, first_step=first_step)
        schedule = learning_rate_schedule(run.config.optimizer, run.total_steps)
        # The rate of every update at once: computed later it would wait for the steps under way.
        self._rates = np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(run.total_steps)))
        self._traces, self._traces_told = 0, 1  # the first time is no news
        self._step_times: list[float] = []
        self._recent: deque[float] = deque(maxlen=max(run.config.log_period, FEWEST_TIMED))
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (self._main and console.is_terminal),
            transient=True,
        )
        self._bar = self._progress.add_task("", total=run.total_steps, completed=first_step)

    def __enter__(self) -> Reporter:
        """Starts the progress bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops the progress bar and writes out what is buffered."""
        self._progress.stop()
        if self._writer:
            self._writer.flush()

    def traced(self) -> None:
        """JAX traces the training step, and so compiles it, or reads it from its cache."""
        self._traces += 1

    def first_step(self) -> None:
        """Says how long the run took to its first step, compilation and all."""
        self.say(f"First step done {self._clock.total:.1f} s after the start")

    def log(self, rows: list[Row], *, step: int) -> None:
        """Tells the means over finished steps, and whether the step was traced again.

        Args:
          rows: finished steps.
          step: the newest step that was started.
        """
        period = self._run.config.log_period
        for _, window in itertools.groupby(rows, lambda row: (row.step - 1) // period):
            self._log_window(list(window))
        if rows and self._traces > self._traces_told:
            self.say(f"The training step was compiled again before step {step:,}", WARNING)
            self._traces_told = self._traces

    def _log_window(self, rows: list[Row]) -> None:
        for row in rows:
            if row.skipped:
                self.say(row.skipped, WARNING)
        line = self._summary(rows, self._seconds_a_step(rows))
        self.say(_sentence(line, self._run.total_steps, self._peak.words))
        self._keep(line)

    def _seconds_a_step(self, rows: list[Row]) -> float | None:
        """The mean over the window, made longer by steps before it where it is very short.

        A step that ends while the host is held up seems long, and the next one short: alone it
        would show several times the speed that there is.
        """
        for row in rows:
            if row.seconds is None:
                self._recent.clear()
            else:
                self._recent.append(row.seconds)
                self._step_times.append(row.seconds)
        timed = sum(row.seconds is not None for row in rows)
        last = list(self._recent)[-max(timed, FEWEST_TIMED) :]
        return sum(last) / len(last) if timed else None

    def _summary(self, rows: list[Row], seconds: float | None) -> dict[str, Any]:
        good = [row.metrics for row in rows if not row.skipped]
        every = [row.metrics for row in rows]

        def mean(name: str, over: list[dict[str, float]]) -> float:
            return sum(metrics[name] for metrics in over) / len(over)

        data = self._run.config.data
        tokens, loss_tokens = mean("tokens", every), mean("loss_tokens", every)
        line: dict[str, Any] = {"step": rows[-1].step}
        if good:
            line |= {"loss": mean("loss", good), "grad_norm": mean("grad_norm", good)}
            if terms := self._run.config.loss_terms:
                line["nll"] = mean("nll", good)
                line["terms"] = {name: mean(f"terms/{name}", good) for name in terms}
        line["learning_rate"] = float(self._rates[max(rows[-1].update, 1) - 1])
        line["padding_share"] = 1 - tokens / (data.batch_size * data.length)
        if len(good) < len(rows):
            line["skipped"] = len(rows) - len(good)
        if seconds is not None:
            line |= {
                "tokens_per_s": tokens / seconds,
                "loss_tokens_per_s": loss_tokens / seconds,
                "step_s": seconds,
            }
            share = self._peak.share(self._run.flops(tokens, loss_tokens) / seconds)
            line |= {} if share is None else {"mfu": share}
        return line

    def heldout(self, step: int, losses: dict[str, float]) -> None:
        """Tells the held-out losses and redraws the plot."""
        self._peak.look_again()  # the devices are idle now
        if losses:
            shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
            self.say(f"step {step:,}  held-out loss: {shown}")
            self._keep({"step": step, "heldout": losses})
            if self._metrics:
                plot_losses(self._metrics.rows, self._run.folder / "loss.png")

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Tells what tasks came to and redraws the plot."""
        shown = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
        self.say(f"step {step:,}  evaluation: {shown}")
        self._keep({"step": step, "eval": dict(scores)})
        if self._metrics:
            plot_losses(self._metrics.rows, self._run.folder / "loss.png")

    def has_scores(self, step: int) -> bool:
        """Whether the run's metrics have those of this step, maybe from before it was resumed."""
        rows = self._metrics.rows if self._metrics else []
        return any(row["step"] == step and "eval" in row for row in rows)

    def saved(self, step: int) -> None:
        """Says that a checkpoint is being written, and keeps account of the time so far."""
        self.say(f"step {step:,}  checkpoint")
        if self._main:
            self._goodput.keep(step)

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        self._progress.update(self._bar, completed=step)

    def finish(self, step: int, *, stop: Stop | None) -> None:
        """Says how the run ended, where its time went and where things lie; draws the plot."""
        if not self._main:
            return
        self._account(step)
        if self._metrics and self._writer:
            plot_losses(self._metrics.rows, self._run.folder / "loss.png")
            self._writer.close()
        if self._wandb:
            self._wandb.finish()
        if stop is not None:
            self.say(f"Saved {stop.saved()}")
            self.say(f"Stopped by {stop.name}: saved step {step:,}; the same command resumes")
        else:
            self.say(f"Done: step {step:,}. Checkpoints, loss.png, metrics.jsonl, tensorboard/ in "
                     f"{self._run.config.model_dir}")  # fmt: skip

    def _account(self, step: int) -> None:
        """Tells and keeps goodput and step times."""
        seconds, times = self._goodput.keep(step), step_time_summary(self._step_times)
        if times:
            self.say(
                f"Step time over {times['steps']:,} steps: median {times['median']:.3f} s, 90 % "
                f"within {times['p90']:.3f}, 99 % within {times['p99']:.3f}, longest "
                f"{times['max']:.3f}"
            )
        self.say(goodput_sentence(seconds))
        if self._metrics and self._writer:
            share = share_in_steps(seconds)
            self._metrics.add(
                {"step": step, "goodput": share, "seconds": seconds, "step_times": times}
            )
            self._writer.add_scalar("goodput", share, step)
            for phase, spent in seconds.items():
                self._writer.add_scalar(f"seconds/{phase}", spent, step)
            if times:
                self._writer.add_histogram("step_s", np.asarray(self._step_times), step)

    def say(self, text: str, style: str = "") -> None:
        """Prints a line."""
        if self._main:
            print_line(self._console, text, style)

    def _keep(self, line: dict[str, Any]) -> None:
        if not (self._metrics and self._writer):
            return
        self._metrics.add(line)
        flat = {name: value for name, value in line.items() if isinstance(value, float)}
        for group in ("terms", "heldout", "eval"):
            flat |= {f"{group}/{name}": value for name, value in line.get(group, {}).items()}
        for name, value in flat.items():
            self._writer.add_scalar(name, value, line["step"])
        if self._wandb:
            self._wandb.log(flat, step=line["step"])


def _sentence(line: dict[str, Any], total_steps: int, of_what: str) -> str:
    parts = [f"step {line['step']:,}/{total_steps:,}"]
    if "loss" in line:
        parts.append(f"loss {line['loss']:.4f}")
        if "terms" in line:
            made_of = {"nll": line["nll"], **line["terms"]}
            parts.append(f"({', '.join(f'{name} {value:.4f}' for name, value in made_of.items())})")
        parts.append(f"grad {line['grad_norm']:.3f}")
    parts.append(f"lr {line['learning_rate']:.2e}")
    if "step_s" in line:
        parts += [
            f"{line['tokens_per_s']:,.0f} tok/s",
            f"{line['loss_tokens_per_s']:,.0f} loss tok/s",
            f"{line['step_s']:.3f} s/step",
        ]
    if "mfu" in line:
        parts.append(f"MFU {line['mfu']:.1%}{of_what}")
    return "  ".join([*parts, f"pad {line['padding_share']:.1%}"])


def _open_tensorboard(folder: Path, first_step: int) -> Any:
    """A writer of TensorBoard events; what a killed process wrote after `first_step` is hidden."""
    # Two of tensorboardX's modules import torch wherever it is installed, for seconds, for what is
    # not used here. It has no switch for that, and its event writer lies in the same package.
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)


def _open_wandb(run: Run) -> Any:
    wandb = importlib.import_module("wandb")
    return wandb.init(project="tulu-jax", dir=str(run.folder), config=run.meta(), resume="allow")
