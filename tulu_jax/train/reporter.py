"""What a run shows and keeps: log lines, progress bar, TensorBoard, W&B, metrics file, plot."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from types import TracebackType
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tulu_jax.errors import ConfigError
from tulu_jax.models.lora import num_adapter_params
from tulu_jax.train.metrics import MetricLog, train_flops
from tulu_jax.train.plot import plot_losses
from tulu_jax.train.setup import Run


class Reporter:
    """Collects step metrics between log steps and tells them everywhere; quiet off process 0."""

    def __init__(self, run: Run, console: Console, *, first_step: int, peak_flops: float) -> None:
        """Opens the log files of the run folder."""
        self._run, self._console = run, console
        self._peak = peak_flops
        self._main = jax.process_index() == 0
        self._metrics = MetricLog(run.folder, resume_step=first_step) if self._main else None
        self._writer = _open_tensorboard(run, first_step) if self._main else None
        self._wandb = _open_wandb(run) if run.config.wandb and self._main else None
        self._rows: list[dict[str, float]] = []
        self._clock = time.perf_counter()
        self._compiled = 1
        self._first_logged = first_step
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
        self._clock = time.perf_counter()
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

    def first_step(self, seconds: float) -> None:
        """Says how long the run took to its first step, compilation and all."""
        self._say(f"First step done {seconds:.1f} s after the start")
        self._clock = time.perf_counter()

    def step(self, step: int, metrics: dict[str, float], learning_rate: float) -> None:
        """Takes the metrics of a finished step."""
        self._rows.append({**metrics, "step": step, "learning_rate": learning_rate})

    def log(self, step: int, *, compiled: int) -> None:
        """Tells the means over the steps since the last line, and whether the step recompiled."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        # The first step of a process waits for compilation; the clock starts after it.
        timed = len(rows) - (rows[0]["step"] == self._first_logged + 1)
        seconds = (time.perf_counter() - self._clock) / max(timed, 1)
        line = self._summary(rows, seconds)
        if not timed:
            for name in ("tokens_per_s", "loss_tokens_per_s", "step_s", "mfu"):
                line.pop(name)
        self._say(_sentence(line, self._run.total_steps))
        self._keep(line)
        if compiled > self._compiled:
            self._say(f"[bold yellow]The training step was compiled again before step {step:,}")
        self._compiled = compiled
        self._clock = time.perf_counter()

    def _summary(self, rows: list[dict[str, float]], seconds: float) -> dict[str, Any]:
        def mean(name: str) -> float:
            return sum(row[name] for row in rows) / len(rows)

        data, lora = self._run.config.data, self._run.config.lora
        flops = train_flops(
            self._run.model,
            tokens=mean("tokens"),
            loss_tokens=mean("loss_tokens"),
            length=data.length,
            adapter_params=None if lora is None else num_adapter_params(self._run.model, lora),
        )
        return {
            "step": int(rows[-1]["step"]),
            "loss": mean("loss"),
            "grad_norm": mean("grad_norm"),
            "learning_rate": rows[-1]["learning_rate"],
            "tokens_per_s": mean("tokens") / seconds,
            "loss_tokens_per_s": mean("loss_tokens") / seconds,
            "padding_share": 1 - mean("tokens") / (data.batch_size * data.length),
            "step_s": seconds,
            "mfu": flops / seconds / self._peak,
        }

    def heldout(self, step: int, losses: dict[str, float]) -> None:
        """Tells the held-out losses and redraws the plot."""
        if losses:
            shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
            self._say(f"step {step:,}  held-out loss: {shown}")
            self._keep({"step": step, "heldout": losses})
            if self._metrics:
                plot_losses(self._metrics.rows, self._run.folder / "loss.png")
        self._clock = time.perf_counter()

    def saved(self, step: int) -> None:
        """Says that a checkpoint is being written; its time is not the steps'."""
        self._say(f"step {step:,}  checkpoint")
        self._clock = time.perf_counter()

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        self._progress.update(self._bar, completed=step)

    def finish(self, step: int, *, stopped_by: str | None) -> None:
        """Says how the run ended and where things lie; draws the final plot."""
        if self._metrics and self._writer:
            plot_losses(self._metrics.rows, self._run.folder / "loss.png")
            self._writer.close()
        if self._wandb:
            self._wandb.finish()
        if stopped_by:
            self._say(f"Stopped by {stopped_by}: saved step {step:,}; the same command resumes")
        else:
            self._say(f"Done: step {step:,}. Checkpoints, loss.png, metrics.jsonl, tensorboard/ in "
                      f"{self._run.folder}")  # fmt: skip

    def _say(self, text: str) -> None:
        if self._main:
            self._console.print(text, highlight=False, soft_wrap=True)

    def _keep(self, line: dict[str, Any]) -> None:
        if not (self._metrics and self._writer):
            return
        self._metrics.add(line)
        flat = {name: value for name, value in line.items() if isinstance(value, float)}
        flat |= {f"heldout/{name}": loss for name, loss in line.get("heldout", {}).items()}
        for name, value in flat.items():
            self._writer.add_scalar(name, value, line["step"])
        if self._wandb:
            self._wandb.log(flat, step=line["step"])


def _sentence(line: dict[str, Any], total_steps: int) -> str:
    parts = [
        f"step {line['step']:,}/{total_steps:,}",
        f"loss {line['loss']:.4f}",
        f"grad {line['grad_norm']:.3f}",
        f"lr {line['learning_rate']:.2e}",
    ]
    if "step_s" in line:
        parts += [
            f"{line['tokens_per_s']:,.0f} tok/s",
            f"{line['loss_tokens_per_s']:,.0f} loss tok/s",
            f"{line['step_s']:.3f} s/step",
            f"MFU {line['mfu']:.1%}",
        ]
    return "  ".join([*parts, f"pad {line['padding_share']:.1%}"])


def _open_tensorboard(run: Run, first_step: int) -> Any:
    """A writer of TensorBoard events; what a killed process wrote after `first_step` is hidden."""
    # tensorboardX imports torch wherever it is installed, for seconds, and needs none of it.
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=first_step + 1)


def _open_wandb(run: Run) -> Any:
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "Weights & Biases is asked for but not installed",
            got="TrainConfig.wandb=True",
            do="`pip install wandb`, or leave it off",
        )
    wandb = importlib.import_module("wandb")
    return wandb.init(project="tulu-jax", dir=str(run.folder), config=run.meta(), resume="allow")
