"""The training loop: read it from top to bottom.

What a run starts from, in order: its own newest complete checkpoint, INITIAL_CHECKPOINT_PATH,
fresh weights. The host stays a few steps ahead of the devices: it starts a step, copies the next
batch, and looks at the metrics of a log window while the step after it runs. Only held-out losses
and checkpoints make the devices wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from functools import partial
from pathlib import Path

import jax
from rich.console import Console

from tulu_jax.checkpoint.manager import Checkpoints
from tulu_jax.checkpoint.owner import owned
from tulu_jax.console import plain_console, print_line
from tulu_jax.models.config import attention_kernel
from tulu_jax.parallel import report_summary, sharding_report
from tulu_jax.parallel.hosts import barrier
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.feed import Feed
from tulu_jax.train.flight import Flight
from tulu_jax.train.goodput import Clock
from tulu_jax.train.guards import BadSteps
from tulu_jax.train.heldout import heldout_losses
from tulu_jax.train.metrics import ADAPTER_FLOP_FORMULA, FLOP_FORMULA, find_peak
from tulu_jax.train.probe import probe_packing
from tulu_jax.train.profile import Profile
from tulu_jax.train.reporter import Reporter
from tulu_jax.train.setup import (
    Run,
    keep_settings,
    make_steps,
    open_base,
    set_up,
    start_state,
    use_compilation_cache,
)
from tulu_jax.train.stopping import stop_signals
from tulu_jax.train.watchdog import Watch, alarm

SET_UP_LIMIT_S = 3600.0
"""How much later than the others a process may have its data ready."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int
    finished: bool
    """False when a signal stopped the run early."""
    heldout: dict[str, float]
    """Last held-out loss by dataset, in nats per loss token."""


def train(
    config: TrainConfig,
    *,
    settings: str = "",
    console: Console | None = None,
    spent_s: float = 0.0,
) -> TrainResult:
    """Runs or resumes the training that `config` describes, to its last step or a signal.

    Args:
      config: the run.
      settings: the same as gin text, kept beside the run.
      console: where to print; only process 0 does.
      spent_s: seconds the process has lived, counted as start-up.

    Raises:
      TuluError: bad settings, data or checkpoints, or a guard that refused to go on.
    """
    started = time.perf_counter() - spent_s
    clock = Clock(spent_s)
    console = console or plain_console()
    console.quiet = console.quiet or jax.process_index() != 0
    say = partial(print_line, console)
    first = jax.process_index() == 0  # it speaks for all processes of the run
    with owned(Path(config.model_dir), say=say) if first else contextlib.nullcontext():
        return _train(config, settings, console, clock, started)


def _train(
    config: TrainConfig, settings: str, console: Console, clock: Clock, started: float
) -> TrainResult:
    """`train` in a folder that is this run's own."""
    run = _open_run(config, settings, console)
    with (
        Checkpoints(run.folder, keep=config.keep_checkpoints) as checkpoints,
        stop_signals(config.grace_s) as stop,
        _watch_over(run, console) as watch,
        run.layout.activate(),
    ):
        # ---- state and compiled steps --------------------------------------------------------
        with watch.phase("restore"):
            run, base = open_base(run, console)
            state = start_state(run, checkpoints, console)
        keep_settings(run)
        step = first_step = int(state.step)
        train_step, eval_step = make_steps(run)
        peak = find_peak(config.compute.dtype)
        _print_plan(run, console, first_step, peak.source)
        reporter = Reporter(run, console, clock, first_step=first_step, peak=peak)
        bad_steps = BadSteps.of_run(config, checkpoints)
        profile = Profile(run, clock, reporter.say, first_step=step)
        feed, flight, heldout = Feed(run, clock, first_step=step), Flight(), {}
        stop.say = reporter.say

        def hold_out() -> dict[str, float]:
            with clock.phase("held-out"), watch.phase("held-out"):
                losses = heldout_losses(run, eval_step, (state.params, base))
            reporter.heldout(step, losses)
            return losses

        # ---- the loop ------------------------------------------------------------------------
        with reporter:
            if step == 0 and config.eval_period:
                heldout = hold_out()
            clock.switch("steps")
            stopping = False
            while step < run.total_steps and not stopping:
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    batch = feed.take(flight)
                    with clock.phase("compile" if step == first_step else "steps"):
                        state, metrics = train_step(state, batch, *base)
                step += 1
                flight.add(step, metrics)
                watch.beat(step)
                feed.prefetch(flight)
                stopping = stop.asked(step)
                last = step == run.total_steps or stopping
                saving = last or step % config.checkpoint_period == 0
                evaluating = config.eval_period and (last or step % config.eval_period == 0)

                if step == first_step + 1:
                    flight.restart()
                    reporter.first_step(time.perf_counter() - started)
                profile.turn(step, flight)
                # Metrics are looked at one step late, so that the devices have the next one.
                due = step if saving or evaluating else step - 1
                if due == step or due % config.log_period == 0:
                    rows = flight.fetch(due)
                    bad_steps.check(rows, last_checkpoint=checkpoints.latest)
                    reporter.log(rows, step=step, compiled=train_step._cache_size())
                if evaluating:
                    heldout = hold_out()
                if saving:
                    with clock.phase("checkpoint"), watch.phase("checkpoint"):
                        checkpoints.save(state, run.meta() | bad_steps.meta())
                    reporter.saved(step)
                if evaluating or saving:
                    flight.restart()
                reporter.advance(step)
            feed.close()
            profile.close()
            with clock.phase("checkpoint"), watch.phase("checkpoint"):
                checkpoints.wait()

        # ---- the end -------------------------------------------------------------------------
        reporter.finish(step, stop=stop if stop.name else None)
    return TrainResult(step, finished=step == run.total_steps, heldout=heldout)


def _open_run(config: TrainConfig, settings: str, console: Console) -> Run:
    """Data, model and mesh, with the guards before anything is paid for."""
    use_compilation_cache()
    run = set_up(config, settings=settings, console=console)
    # Collectives give up on a late process after seconds, and do not say which.
    barrier("data and model are ready", timeout_s=SET_UP_LIMIT_S)
    with run.layout.activate():
        difference = probe_packing(run.model, run.layout, compute=config.compute)
    kernel = attention_kernel(config.compute, run.layout.mesh)
    console.print(f"Attention kernel: {kernel.name}, {kernel.reason}")
    console.print(f"Packing probe: packed and apart agree to {difference:.1e}")
    return run


def _watch_over(run: Run, console: Console) -> Watch:
    config = run.config
    return Watch(
        run.folder,
        say=partial(alarm, console),
        stall_factor=config.stall_factor,
        stall_minimum_s=config.stall_minimum_s,
        stall_ends=config.stall_ends,
        peer_timeout_s=config.peer_timeout_s,
    )


def _print_plan(run: Run, console: Console, first_step: int, peak_source: str) -> None:
    mesh = ", ".join(f"{name} {size}" for name, size in run.layout.mesh.shape.items())
    device = jax.devices()[0].device_kind
    data = run.config.data
    console.print(
        f"Model: {run.model.num_params:,} weights, {run.config.compute.dtype} compute. "
        f"Devices: {jax.device_count()} x {device} ({mesh})."
    )
    if run.layout.mesh.size > 1:
        for line in report_summary(sharding_report(run.model, run.layout)):
            console.print(line, soft_wrap=True)
    console.print(
        f"Steps {first_step:,} to {run.total_steps:,}: {data.batch_size} rows of {data.length} "
        f"tokens ({data.packing}), {run.data.train.num_rows:,} rows an epoch; "
        f"loss mean by {run.config.loss_normalization}; data seed {data.seed}."
    )
    if run.config.eval_period and not run.data.heldout:
        console.print(
            "No rows are held out: EVAL_PERIOD has no effect (HELDOUT_EXAMPLES sets some)."
        )
    formula = FLOP_FORMULA if run.config.lora is None else ADAPTER_FLOP_FORMULA
    console.print(f"MFU = ({formula}) / time / {peak_source}")
