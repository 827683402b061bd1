"""The training loop: read it from top to bottom.

What a run starts from, in order: its own newest complete checkpoint, INITIAL_CHECKPOINT_PATH,
fresh weights. The host stays a few steps ahead of the devices: it starts a step, copies the next
batch, and looks at the metrics of a log window while the step after it runs. Only held-out losses,
questions of benchmarks and checkpoints make the devices wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial

import jax
from rich.console import Console

from tulu_jax.checkpoint.manager import Checkpoints
from tulu_jax.console import plain_console, print_line
from tulu_jax.data.ensure import TrainingData
from tulu_jax.parallel import report_summary, sharding_report
from tulu_jax.places import StorageError
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.evaluation import Evaluate, Evaluation, check_evaluation
from tulu_jax.train.feed import Feed
from tulu_jax.train.flight import Flight
from tulu_jax.train.goodput import Clock
from tulu_jax.train.guards import BadSteps
from tulu_jax.train.heldout import HeldOut
from tulu_jax.train.metrics import find_peak
from tulu_jax.train.mirror import Mirror, held_run
from tulu_jax.train.profile import Profile
from tulu_jax.train.reporter import Reporter
from tulu_jax.train.run import Run
from tulu_jax.train.setup import set_up, start
from tulu_jax.train.stopping import Stop, stop_signals
from tulu_jax.train.watchdog import Watch, alarm


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
    show_data: Callable[[TrainingData], None] = lambda _: None,
    evaluate: Evaluate | None = None,
) -> TrainResult:
    """Runs or resumes the training that `config` describes, to its last step or a signal.

    Args:
      config: the run.
      settings: the same as gin text, kept beside the run.
      console: where to print; only process 0 does.
      spent_s: seconds the process has lived, counted as start-up.
      show_data: told what will be trained on, once it is open.
      evaluate: asks tasks of the weights, every EVAL_TASKS_PERIOD steps.

    Raises:
      TuluError: bad settings, data or checkpoints, or a guard that refused to go on.
    """
    check_evaluation(config, evaluate)
    clock = Clock(spent_s)
    console = console or plain_console()
    console.quiet = console.quiet or jax.process_index() != 0
    say = partial(print_line, console)
    with held_run(config.model_dir, say=say) as mirror:
        run = set_up(config, settings=settings, console=console, show_data=show_data)
        watching = Watch(
            run.folder,
            say=partial(alarm, console),
            stall_factor=config.stall_factor,
            stall_minimum_s=config.stall_minimum_s,
            stall_ends=config.stall_ends,
            peer_timeout_s=config.peer_timeout_s,
        )
        with (
            Checkpoints(config.model_dir, keep=config.keep_checkpoints) as checkpoints,
            stop_signals(config.grace_s, say) as stop,
            watching as watch,
            run.layout.activate(),
        ):
            try:
                result = _train(run, console, clock, checkpoints, stop, watch, evaluate, mirror)
                mirror.send()
            except StorageError as error:
                raise checkpoints.cut_off(error) from error
            return result


def _train(
    run: Run, console: Console, clock: Clock, checkpoints: Checkpoints, stop: Stop, watch: Watch,
    evaluate: Evaluate | None, mirror: Mirror,
) -> TrainResult:  # fmt: skip
    """`train` in a folder that is this run's own, with data and model open."""
    # ---- what the loop works on ----------------------------------------------------------------
    # Restored first: which batch comes next, and which learning rate, depend on nothing but `step`.
    with watch.phase("restore"):
        run, state, frozen = start(run, checkpoints, console)
    config, step = run.config, int(state.step)
    first_step, last = step, step == run.total_steps
    peak = find_peak(config.compute.dtype)
    _print_plan(run, console, first_step, peak.source)
    reporter = Reporter(run, console, clock, first_step=step, peak=peak)
    mirror.send()
    train_step, heldout = run.step(reporter.traced), HeldOut(run, frozen, clock, watch)
    evaluation = Evaluation(
        run, frozen, evaluate, clock=clock, watch=watch, stop=stop, reporter=reporter
    )
    bad_steps, flight = BadSteps.of_run(config, checkpoints), Flight()
    feed = Feed(run, clock, first_step=step)
    profile = Profile(run, clock, reporter.say, first_step=step)

    # ---- the loop: the host runs ahead of the devices, and waits for them in `flight` only ------
    with reporter, contextlib.closing(feed), contextlib.closing(profile):
        # Before anything is learnt, so that what training changes can be read off.
        if step == 0 and config.eval_period:
            reporter.heldout(step, heldout.measure(state.params))
        if evaluation.due(step):
            evaluation.measure(state.params, step)
        clock.switch("steps")
        while not last:
            # Start a step; while the devices work, copy the batch of the next one to them.
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                batch = feed.take(flight)
                with clock.phase("compile" if step == first_step else "steps"):
                    state, metrics = train_step(state, batch, *frozen)
            step += 1
            flight.add(step, metrics)
            watch.beat(step)
            feed.prefetch(flight)  # after the step was started: the copy costs no time then
            if step == first_step + 1:  # it was compiled: its time is not that of a step
                flight.restart()
                reporter.first_step()
            profile.turn(step, flight)
            # All processes must stop after the same step, or those that go on wait for the others
            # in a collective for ever. A run that stops is saved and measured.
            last = stop.asked(step) or step == run.total_steps
            saving = last or step % config.checkpoint_period == 0
            evaluating = config.eval_period and (last or step % config.eval_period == 0)
            # Metrics are looked at one step late, so that the devices have the next one; but not
            # where the state is saved: weights of a bad step must not get into a checkpoint.
            due = step if saving or evaluating else step - 1
            if due == step or due % config.log_period == 0:
                rows = flight.fetch(due)
                bad_steps.check(rows, last_checkpoint=checkpoints.latest)
                reporter.log(rows, step=step)
                mirror.send_soon()
            if evaluating:
                reporter.heldout(step, heldout.measure(state.params))
            if saving:
                with clock.phase("checkpoint"), watch.phase("checkpoint"):
                    mirror.send()  # first, so that a checkpoint never lacks its metrics
                    checkpoints.save(state, run.meta() | bad_steps.meta())
                reporter.saved(step)
            # After the save, which must not wait for it nor be lost with it.
            if asking := evaluation.due(step):
                flight.restart()  # the step under way is not timed with it
                evaluation.measure(state.params, step)
            if (
                evaluating or saving or asking
            ):  # the devices waited: that is not the next step's time
                flight.restart()
            reporter.advance(step)
        # Saving goes on in the background: a run has ended when its last checkpoint is whole.
        with clock.phase("checkpoint"), watch.phase("checkpoint"):
            checkpoints.wait()
    reporter.finish(step, stop=stop if stop.name else None)
    return TrainResult(step, finished=step == run.total_steps, heldout=heldout.losses)


def _print_plan(run: Run, console: Console, first_step: int, peak_source: str) -> None:
    mesh = ", ".join(f"{name} {size}" for name, size in run.layout.mesh.shape.items())
    device = jax.devices()[0].device_kind
    data = run.config.data
    terms = "".join(f" + {factor:g} x {term}" for term, factor in run.config.loss_terms.items())
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
        f"loss mean by {run.config.loss_normalization}{terms}; data seed {data.seed}."
    )
    if run.config.eval_period and not run.data.heldout:
        console.print(
            "No rows are held out: EVAL_PERIOD has no effect (HELDOUT_EXAMPLES sets some)."
        )
    console.print(f"MFU = ({run.trained.flop_formula}) / time / {peak_source}")
