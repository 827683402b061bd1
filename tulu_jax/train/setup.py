"""A run before its first step: `set_up` opens and checks it, `start` gives its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

from tulu_jax.chat import copy_tokenizer_files, save_tokenizer_files
from tulu_jax.checkpoint.arrays import complete_steps
from tulu_jax.checkpoint.manager import (
    Checkpoints,
    restore_params,
    saved_generation,
)
from tulu_jax.checkpoint.owner import unwritable_run
from tulu_jax.checkpoint.trouble import DamagedCheckpointError
from tulu_jax.console import WARNING, print_line
from tulu_jax.data.ensure import TrainingData, open_training_data
from tulu_jax.models.config import attention_kernel
from tulu_jax.parallel import report_text, sharding_report
from tulu_jax.parallel.compile_cache import use_compilation_cache
from tulu_jax.parallel.hosts import barrier, check_agree
from tulu_jax.train.budget import budget_text, device_limit, memory_budget
from tulu_jax.train.checks import (
    check_before_data,
    check_not_beyond,
    check_same_run,
    open_initial,
)
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.format import say_format
from tulu_jax.train.optimizer import make_optimizer
from tulu_jax.train.probe import probe_packing
from tulu_jax.train.run import Run, lay_out
from tulu_jax.train.state import TrainState

SET_UP_LIMIT_S = 3600.0
"""How much later than the others a process may have its data ready."""
OF_ONE_HOST = ("tokenizer_path", "base_path", "initial_checkpoint", "settings", "exclude_files")
"""Parts of a run's metadata with paths, which each host may have otherwise; `rows` say what
exclude files left out."""
KEPT_LATER = ("dtype", "paper_rows", "seed", "on_bad_step", "bad_grad_norm")
"""Parts that older checkpoints do not have."""
MAY_CHANGE = ("total_steps", "loss_normalization", "loss_terms", "optimizer", *KEPT_LATER)
"""Parts of a run's metadata with which it may go on otherwise than it began, and says so."""


def set_up(
    config: TrainConfig,
    *,
    settings: str,
    console: Console,
    show_data: Callable[[TrainingData], None] = lambda _: None,
) -> Run:
    """The run that `config` describes: data open (prepared if need be), all known to fit together.

    Raises:
      TuluError: whatever does not fit, before anything is allocated.
    """
    # ---- what can be known without data: preparing it may take hours --------------------------
    use_compilation_cache(lambda line: console.print(line, soft_wrap=True))
    model = check_before_data(config)
    layout = lay_out(config, model)

    # ---- data, which alone say how long a run of EPOCHS is ------------------------------------
    data = open_training_data(config.data)
    say_format(config.data, model, data.tokenizer, console)
    show_data(data)
    total_steps = config.train_steps or data.train.num_steps(config.data.batch_size) or 0

    # ---- the run, and whether it fits into memory ---------------------------------------------
    optimizer = make_optimizer(config.optimizer, total_steps)
    # A run that goes on keeps what it began with; a new one takes it from where it starts.
    path = config.model_dir if complete_steps(config.model_dir) else config.initial_checkpoint
    generation = {} if path is None else saved_generation(path)
    run = Run(config, model, layout, optimizer, total_steps, data, settings, generation)
    console.print(budget_text(memory_budget(run), device_limit()), soft_wrap=True)

    # ---- what no process finds out alone -------------------------------------------------------
    check_agree({name: part for name, part in run.meta().items() if name not in OF_ONE_HOST})
    # Collectives give up on a late process after seconds, and do not say which.
    barrier("data and model are ready", timeout_s=SET_UP_LIMIT_S)

    # ---- whether packed conversations stay apart in this very kernel, dtype and mesh -----------
    # A leak between them changes no shape and raises nothing: the loss is only slightly wrong.
    with layout.activate():
        difference = probe_packing(model, layout, compute=config.compute)
    kernel = attention_kernel(config.compute, layout.mesh)
    console.print(f"Attention kernel: {kernel.name}, {kernel.reason}")
    console.print(f"Packing probe: packed and apart agree to {difference:.1e}")
    return run


def start(
    run: Run, checkpoints: Checkpoints, console: Console
) -> tuple[Run, TrainState, tuple[Any, ...]]:
    """The run as checkpoints describe it, the state to go on from, and the frozen weights.

    Raises:
      CheckpointError: a checkpoint is of another run, or none can be read.
    """
    # A checkpoint names the frozen weights it belongs to: so these are read first.
    run, frozen = read_frozen(run, console)
    state = start_state(run, checkpoints, console)
    # Not before: in the folder of another run, nothing may be overwritten.
    _keep_settings(run)
    return run, state, frozen


def _keep_settings(run: Run) -> None:
    """Keeps settings, layout and tokenizer in the run folder, once the run is sure to be this one.

    So the run can be moved, looked at and exported without the files it was started with.

    Raises:
      ConfigError: they cannot be written.
    """
    if jax.process_index():
        return
    try:
        (run.folder / "settings.gin").write_text(run.settings)
        shares = sharding_report(run.model, run.layout)
        (run.folder / "sharding.txt").write_text(report_text(shares))
        if run.config.data.add_tokens:
            save_tokenizer_files(run.data.tokenizer, run.folder / "tokenizer")
        else:
            copy_tokenizer_files(run.data.tokenizer.path, run.folder / "tokenizer")
    except OSError as error:
        raise unwritable_run(run.folder, error) from error


def start_state(run: Run, checkpoints: Checkpoints, console: Console) -> TrainState:
    """The state to go on from: the run's own newest checkpoint, else the initial one, else fresh.

    A checkpoint that turns out to be damaged is set aside, aloud, for the one before it.

    Raises:
      CheckpointError: the checkpoint is of another model, tokenizer or data, or all are damaged.
    """
    # ---- the run's own checkpoints, newest first ----------------------------------------------
    for folder in checkpoints.set_aside_at_start:
        print_line(console, f"Half-written checkpoint set aside as {folder}", WARNING)
    while (latest := checkpoints.latest()) is not None:
        try:
            return _resume(run, checkpoints, latest, console)
        except DamagedCheckpointError as error:
            # To begin anew without a word would throw away what was trained.
            if checkpoints.oldest() == latest:
                raise
            folder = checkpoints.set_aside(latest)
            print_line(console, f"{error}\nSet aside as {folder}", WARNING)

    # ---- none: INITIAL_CHECKPOINT_PATH, or weights drawn from the seed --------------------------
    path, _ = run.trained.paths(run.config.initial_checkpoint)
    if path is None:
        console.print(f"Starting from fresh {run.trained.name}, seed {run.config.seed}")
        return run.start()
    console.print(f"Starting from the weights of {path}", soft_wrap=True)
    return run.start(_load_params(run, path, console))


def _resume(run: Run, checkpoints: Checkpoints, step: int, console: Console) -> TrainState:
    saved, current = checkpoints.meta(step), run.meta()
    where = checkpoints.folder / str(step)
    check_same_run(saved, current, where=where)
    check_not_beyond(step, run.total_steps, where=where)
    for name in MAY_CHANGE:
        if name in KEPT_LATER and name not in saved:
            continue
        # Runs of before there were terms had none, and do not say so.
        if (saved.get(name) or None) != (current[name] or None):
            text = f"{name} changed: {saved.get(name)} when saved, {current[name]} from now on"
            print_line(console, text, WARNING)
    _say_unread(run, saved, console)
    state = checkpoints.restore(step, run.state())
    console.print(f"Resuming from step {step:,} of {checkpoints.folder}", soft_wrap=True)
    return state


def _say_unread(run: Run, saved: dict[str, Any], console: Console) -> None:
    """Says that a run that goes on does not read INITIAL_CHECKPOINT_PATH, aloud if it is another.

    Adapters stand beside its weights, which are read and compared with those of before.
    """
    path, _ = run.trained.paths(run.config.initial_checkpoint)
    if path is None:
        return
    if saved.get("initial_checkpoint", path) == path:
        text = "INITIAL_CHECKPOINT_PATH is not read: the run goes on with its own weights"
        print_line(console, text)
        return
    text = (
        f"INITIAL_CHECKPOINT_PATH does nothing here: {path}, though the run began from "
        f"{saved['initial_checkpoint'] or 'fresh weights'} and goes on with its own weights; to "
        "start from it set another MODEL_DIR"
    )
    print_line(console, text, WARNING)


def read_frozen(run: Run, console: Console) -> tuple[Run, tuple[Any, ...]]:
    """The run with its frozen weights' fingerprints, and these weights, which steps take besides.

    Neither where every weight is trained.
    """
    _, path = run.trained.paths(run.config.initial_checkpoint)
    frozen, fingerprints = run.trained.read_frozen(
        lambda dtype: _load_params(run, str(path), console, dtype=dtype)
    )
    for line in run.trained.lines(path):
        console.print(line, soft_wrap=True)
    return dataclasses.replace(run, frozen_weights=fingerprints), frozen


def _load_params(run: Run, path: str, console: Console, *, dtype: str = "float32") -> Any:
    """Weights of a run folder or Hugging Face folder, each slice straight onto its devices."""
    folder = open_initial(run.model, path, dtype=dtype)
    if folder is None:
        return restore_params(path, run.model, run.layout, dtype=dtype)
    from tulu_jax.checkpoint.sharded import read_sharded

    for note in folder.notes:
        print_line(console, f"note {note}", WARNING)
    return read_sharded(folder, run.layout.params(run.model))
