"""The training loop: read it from top to bottom.

What a run starts from, in order: its own newest complete checkpoint, INITIAL_CHECKPOINT_PATH,
fresh weights. Nothing inside the loop waits for the devices but log steps, held-out losses
and checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
from rich.console import Console

from tulu_jax.checkpoint.manager import Checkpoints
from tulu_jax.data.loader import open_batches
from tulu_jax.data.rows import RowSource
from tulu_jax.data.to_device import put_batch
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.guards import check_batch, check_finite
from tulu_jax.train.metrics import ADAPTER_FLOP_FORMULA, FLOP_FORMULA, peak_flops
from tulu_jax.train.optimizer import learning_rate_schedule
from tulu_jax.train.probe import probe_packing
from tulu_jax.train.reporter import Reporter
from tulu_jax.train.setup import (
    Run,
    keep_settings,
    open_base,
    set_up,
    start_state,
    use_compilation_cache,
)
from tulu_jax.train.step import make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int
    finished: bool
    """False when a signal stopped the run early."""
    heldout: dict[str, float]
    """Last held-out loss by dataset, in nats per loss token."""


def train(
    config: TrainConfig, *, settings: str = "", console: Console | None = None
) -> TrainResult:
    """Runs or resumes the training that `config` describes, to its last step or a signal.

    Raises:
      TuluError: bad settings, data or checkpoints, or a guard that refused to go on.
    """
    started = time.perf_counter()
    console = console or Console()
    console.quiet = console.quiet or jax.process_index() != 0

    # ---- data, model, mesh -------------------------------------------------------------------
    use_compilation_cache()
    run = set_up(config, settings=settings, console=console)
    index, count = run.layout.row_share()
    process: dict[str, int] = {"process_index": index, "process_count": count}

    # ---- guards before anything is paid for --------------------------------------------------
    with run.layout.activate():
        difference = probe_packing(run.model, run.layout, compute=config.compute)
    console.print(f"Packing probe: packed and apart agree to {difference:.1e}")

    with (
        Checkpoints(run.folder, keep=config.keep_checkpoints) as checkpoints,
        _stop_signals() as stop,
    ):
        # ---- state and compiled steps --------------------------------------------------------
        with run.layout.activate():
            run, base = open_base(run, console)
            state = start_state(run, checkpoints, console)
        keep_settings(run)
        first_step = int(state.step)
        train_step = make_train_step(
            run.model,
            run.optimizer,
            run.layout,
            compute=config.compute,
            micro_batches=config.micro_batches,
            normalization=config.loss_normalization,
            paper_rows=config.paper_rows,
            lora=config.lora,
            seed=config.seed,
        )
        eval_step = make_eval_step(run.model, run.layout, compute=config.compute, lora=config.lora)
        peak, peak_source = peak_flops(config.compute.dtype)
        reporter = Reporter(run, console, first_step=first_step, peak_flops=peak)
        _print_plan(run, console, first_step, peak_source)

        # ---- the loop ------------------------------------------------------------------------
        batches = open_batches(
            run.data.train, batch_size=config.data.batch_size, start_step=first_step, **process
        )
        schedule = learning_rate_schedule(config.optimizer, run.total_steps)
        step, heldout, waiting = first_step, {}, []
        tokenizer = run.data.tokenizer
        with run.layout.activate(), reporter:
            if step == 0 and config.eval_period:
                heldout = _heldout_losses(run, eval_step, (state.params, base), process)
                reporter.heldout(step, heldout)
            stopping = False
            while step < run.total_steps and not stopping:
                rows = next(batches)
                check_batch(rows, step=step, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
                state, metrics = train_step(state, put_batch(rows, run.layout.rows), *base)
                step += 1
                waiting.append((step, metrics))
                if step == first_step + 1:
                    jax.block_until_ready(metrics)
                    reporter.first_step(time.perf_counter() - started)
                stopping = bool(stop)
                last = step == run.total_steps or stopping
                saving = last or step % config.checkpoint_period == 0
                evaluating = config.eval_period and (last or step % config.eval_period == 0)
                if saving or evaluating or step % config.log_period == 0:
                    for done, values in _fetch(waiting):
                        check_finite(done, values, last_checkpoint=checkpoints.latest())
                        reporter.step(done, values, float(jax.device_get(schedule(done - 1))))
                    waiting.clear()
                    reporter.log(step, compiled=train_step._cache_size())
                if evaluating:
                    heldout = _heldout_losses(run, eval_step, (state.params, base), process)
                    reporter.heldout(step, heldout)
                if saving:
                    checkpoints.save(state, run.meta())
                    reporter.saved(step)
                reporter.advance(step)
            batches.close()
        checkpoints.wait()

    # ---- the end -----------------------------------------------------------------------------
    reporter.finish(step, stopped_by=stop.name)
    return TrainResult(step, finished=step == run.total_steps, heldout=heldout)


def _heldout_losses(
    run: Run, eval_step: Any, weights: tuple[Any, tuple[Any, ...]], process: dict[str, int]
) -> dict[str, float]:
    """Mean nll per loss token of each dataset's held-out rows."""
    losses = {}
    rows_at_once = run.config.data.batch_size // run.config.micro_batches
    for name, source in run.data.heldout.items():
        sums = [
            eval_step(weights[0], put_batch(rows, run.layout.rows), *weights[1])
            for rows in _all_batches(source, rows_at_once, process)
        ]
        nll, count = (sum(map(float, column)) for column in zip(*jax.device_get(sums), strict=True))
        losses[name] = nll / max(count, 1.0)
    return losses


def _all_batches(source: RowSource, size: int, process: dict[str, int]) -> Iterator[dict[str, Any]]:
    for step in range(source.num_steps(size) or 0):
        yield source.batch(step, size, **process)


def _fetch(waiting: list[tuple[int, Any]]) -> list[tuple[int, dict[str, float]]]:
    """The metrics of finished steps as floats; waits for the newest."""
    steps = [step for step, _ in waiting]
    values = jax.device_get([metrics for _, metrics in waiting])
    return [
        (step, {name: float(value) for name, value in row.items()})
        for step, row in zip(steps, values, strict=True)
    ]


def _print_plan(run: Run, console: Console, first_step: int, peak_source: str) -> None:
    mesh = ", ".join(f"{name} {size}" for name, size in run.layout.mesh.shape.items())
    device = jax.devices()[0].device_kind
    data = run.config.data
    console.print(
        f"Model: {run.model.num_params:,} weights, {run.config.compute.dtype} compute. "
        f"Devices: {jax.device_count()} x {device} ({mesh})."
    )
    for note in run.layout.notes:
        console.print(f"  not split: {note}")
    console.print(
        f"Steps {first_step:,} to {run.total_steps:,}: {data.batch_size} rows of {data.length} "
        f"tokens ({data.packing}), {run.data.train.num_rows:,} rows an epoch; "
        f"loss mean by {run.config.loss_normalization}; data seed {data.seed}."
    )
    formula = FLOP_FORMULA if run.config.lora is None else ADAPTER_FLOP_FORMULA
    console.print(f"MFU = ({formula}) / time / {peak_source}")


class _Stop:
    """Whether a signal asked the run to stop, and which."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Inside, SIGTERM and SIGINT ask for a save and a clean end; a second one ends at once."""
    stop = _Stop()
    before = {}

    def ask(number: int, _: Any) -> None:
        stop.name = signal.Signals(number).name
        for each, handler in before.items():
            signal.signal(each, handler)

    try:
        for each in (signal.SIGTERM, signal.SIGINT):
            before[each] = signal.signal(each, ask)
    except ValueError:  # Not the main thread: whoever runs us there handles signals.
        before.clear()
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
