"""Everything a run needs, built and checked before the first step."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from rich.console import Console

from tulu_jax.chat import copy_tokenizer_files, save_tokenizer_files
from tulu_jax.checkpoint.arrays import complete_steps
from tulu_jax.checkpoint.fingerprint import tree_fingerprints
from tulu_jax.checkpoint.manager import (
    Checkpoints,
    restore_params,
    saved_generation,
)
from tulu_jax.checkpoint.owner import unwritable_run
from tulu_jax.checkpoint.trouble import DamagedCheckpointError
from tulu_jax.console import WARNING, print_line
from tulu_jax.data.ensure import TrainingData, open_training_data
from tulu_jax.inspect.report import dataset_report, mixture_report, mixture_table, report_table
from tulu_jax.models import ModelConfig, config_to_dict
from tulu_jax.models.lora import num_adapter_params, quantize_base
from tulu_jax.parallel import Layout, layout_for, make_mesh, report_text, sharding_report
from tulu_jax.parallel.hosts import check_agree
from tulu_jax.train.budget import budget_text, device_limit, memory_budget
from tulu_jax.train.checks import (
    check_before_data,
    check_not_beyond,
    check_same_run,
    open_initial,
)
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.format import say_format
from tulu_jax.train.optimizer import make_optimizer, state_form
from tulu_jax.train.state import TrainState, abstract_state, create_state
from tulu_jax.train.step import make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Run:
    """A checked run: what the loop works on."""

    config: TrainConfig
    model: ModelConfig
    data: TrainingData
    layout: Layout
    optimizer: optax.GradientTransformation
    total_steps: int
    settings: str
    """The resolved gin settings, as saved and printed."""
    base_weights: dict[str, str] | None = None
    """With LoRA, the fingerprint of every frozen weight; set by `open_base`."""
    generation: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The `generation_config.json` of the model it starts from, which its exports keep."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.model_dir)

    @property
    def row_share(self) -> dict[str, int]:
        """Which part of every batch this process reads."""
        index, count = self.layout.row_share()
        return {"process_index": index, "process_count": count}

    def meta(self) -> dict[str, Any]:
        """What every checkpoint says about itself, as JSON values."""
        data = self.config.data
        return {
            "model": config_to_dict(self.model),
            "tokenizer": self.data.tokenizer.fingerprint,
            "stores": {store.name: store.fingerprint for store in self.data.stores},
            "rows": {
                "seed": data.seed,
                "length": data.length,
                "batch_size": data.batch_size,
                "packing": data.packing,
                "heldout_examples": data.heldout_examples,
                "encoding": data.encoding,
                **self.data.mixing,
            },
            "exclude_files": self.data.exclusion.files_record(),
            "chat_template": self.data.tokenizer.template.name,
            "tokenizer_path": str(Path(data.tokenizer).absolute()),
            "encoding": data.encoding,
            "total_steps": self.total_steps,
            "loss_normalization": self.config.loss_normalization,
            "optimizer": dataclasses.asdict(self.config.optimizer),
            "optimizer_form": state_form(dataclasses.asdict(self.config.optimizer)),
            "settings": self.settings,
            "lora": self._lora_meta(),
            "base_path": self._base_path(),
            "generation": self.generation,
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("jax", "flax", "optax", "orbax-checkpoint")
            },
        }

    def _lora_meta(self) -> dict[str, Any] | None:
        """What must be the same when the run goes on: adapters, and the weights they stand by."""
        lora = self.config.lora
        if lora is None:
            return None
        fields = {**dataclasses.asdict(lora), "targets": sorted(lora.weights)}
        return {**fields, "base_weights": self.base_weights}

    def _base_path(self) -> str | None:
        """Where the frozen weights lie; they may move, their fingerprints may not change."""
        path = self.config.initial_checkpoint
        return None if self.config.lora is None or path is None else str(Path(path).absolute())


OF_ONE_HOST = ("tokenizer_path", "base_path", "settings", "exclude_files")
"""Parts of a run's metadata with paths, which each host may have otherwise; `rows` say what
exclude files left out."""


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a restart does not compile again.

    In `$TULU_CACHE_DIR`, by default `~/.cache/tulu_jax`; set it empty to keep nothing.
    """
    folder = os.environ.get("TULU_CACHE_DIR", str(Path.home() / ".cache" / "tulu_jax"))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def set_up(config: TrainConfig, *, settings: str, console: Console) -> Run:
    """Opens data (preparing it if need be), model and mesh, and checks that they fit together.

    Raises:
      TuluError: whatever does not fit, before anything is allocated.
    """
    model = check_before_data(config)
    layout = layout_for(
        model,
        make_mesh(config.mesh),
        rules=config.mesh.axis_rules,
        offload_optimizer=config.mesh.offload_optimizer,
    )
    layout.check_rows(
        config.data.batch_size // config.micro_batches, name="BATCH_SIZE / MICRO_BATCHES"
    )
    layout.check_length(config.data.length)
    data = open_training_data(config.data)
    say_format(config, model, data.tokenizer, console)
    _print_data(config, data, console)
    total_steps = _total_steps(config, data)
    optimizer = make_optimizer(config.optimizer, total_steps)
    generation = _generation(config)
    run = Run(config, model, data, layout, optimizer, total_steps, settings, None, generation)
    check_agree({name: part for name, part in run.meta().items() if name not in OF_ONE_HOST})
    console.print(budget_text(memory_budget(run), device_limit()), soft_wrap=True)
    return run


def _print_data(config: TrainConfig, data: TrainingData, console: Console) -> None:
    """The tables of what will be trained, and what is to be known about them."""
    reports = dataset_report(
        data.stores,
        row_length=config.data.length,
        packing=config.data.packing,
        exclusion=data.exclusion,
    )
    console.print(report_table(reports))
    for report in reports:
        for line in report.unused:
            print_line(console, f"{report.name}: {line}")
    if len(data.stores) > 1:
        mixed = mixture_report(
            data.train, batch_size=config.data.batch_size, exclusion=data.exclusion
        )
        console.print(mixture_table(mixed))
    for note in data.notes:
        print_line(console, note, style="yellow")


def _total_steps(config: TrainConfig, data: TrainingData) -> int:
    """Optimizer steps of the whole run, from TRAIN_STEPS or EPOCHS."""
    return config.train_steps or data.train.num_steps(config.data.batch_size) or 0


def keep_settings(run: Run) -> None:
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


def _generation(config: TrainConfig) -> dict[str, Any]:
    """What a run that goes on has of it, else the model it starts from."""
    started = complete_steps(config.model_dir)
    path = config.model_dir if started else config.initial_checkpoint
    return {} if path is None else saved_generation(path)


def start_state(run: Run, checkpoints: Checkpoints, console: Console) -> TrainState:
    """The state to go on from: the run's own newest checkpoint, else the initial one, else fresh.

    A checkpoint that turns out to be damaged is set aside, aloud, for the one before it.

    Raises:
      CheckpointError: the checkpoint is of another model, tokenizer or data, or all are damaged.
    """
    for folder in checkpoints.set_aside_at_start:
        print_line(console, f"Half-written checkpoint set aside as {folder}", WARNING)
    while (latest := checkpoints.latest()) is not None:
        try:
            return _resume(run, checkpoints, latest, console)
        except DamagedCheckpointError as error:
            if checkpoints.oldest() == latest:
                raise
            folder = checkpoints.set_aside(latest)
            print_line(console, f"{error}\nSet aside as {folder}", WARNING)
    path, lora = run.config.initial_checkpoint, run.config.lora
    if lora is not None:
        console.print(f"Starting from fresh adapters, seed {run.config.seed}")
        return create_state(run.model, run.optimizer, run.layout, seed=run.config.seed, lora=lora)
    if path is None:
        console.print(f"Starting from fresh weights, seed {run.config.seed}")
        return create_state(run.model, run.optimizer, run.layout, seed=run.config.seed)
    console.print(f"Starting from the weights of {path}", soft_wrap=True)
    return create_state(
        run.model, run.optimizer, run.layout, params=_load_params(run, path, console)
    )


def _resume(run: Run, checkpoints: Checkpoints, step: int, console: Console) -> TrainState:
    saved, current = checkpoints.meta(step), run.meta()
    where = checkpoints.folder / str(step)
    check_same_run(saved, current, where=where)
    check_not_beyond(step, run.total_steps, where=where)
    for name in ("total_steps", "loss_normalization", "optimizer"):
        if saved.get(name) != current[name]:
            text = f"{name} changed: {saved.get(name)} when saved, {current[name]} from now on"
            print_line(console, text, WARNING)
    target = abstract_state(run.model, run.optimizer, run.layout, lora=run.config.lora)
    state = checkpoints.restore(step, target)
    console.print(f"Resuming from step {step:,} of {checkpoints.folder}", soft_wrap=True)
    return state


def open_base(run: Run, console: Console) -> tuple[Run, tuple[Any, ...]]:
    """The run with its base's fingerprints, and what steps take besides: the frozen weights.

    Nothing at all for full fine-tuning.
    """
    lora, path = run.config.lora, run.config.initial_checkpoint
    if lora is None or path is None:
        return run, ()
    base = _load_params(run, path, console, dtype=lora.read_dtype)
    count = num_adapter_params(run.model, lora)
    console.print(
        f"LoRA: {count:,} weights in adapters of rank {lora.rank} on "
        f"{', '.join(sorted(lora.weights))}"
        f"; base {path}, frozen, {lora.base_dtype}",
        soft_wrap=True,
    )
    run = dataclasses.replace(run, base_weights=tree_fingerprints(base))
    return run, (quantize_base(run.model, lora, base) if lora.quantized else base,)


def make_steps(run: Run) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled steps of the run: `make_train_step` and `make_eval_step`."""
    config = run.config
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
        skip_bad=config.on_bad_step == "skip",
        bad_grad_norm=config.bad_grad_norm,
    )
    eval_step = make_eval_step(run.model, run.layout, compute=config.compute, lora=config.lora)
    return train_step, eval_step


def _load_params(run: Run, path: str, console: Console, *, dtype: str = "float32") -> Any:
    """Weights of a run folder or Hugging Face folder, each slice straight onto its devices."""
    folder = open_initial(run.model, path, dtype=dtype)
    if folder is None:
        return restore_params(path, run.model, run.layout, dtype=dtype)
    from tulu_jax.checkpoint.sharded import read_sharded

    for note in folder.notes:
        print_line(console, f"note {note}", WARNING)
    return read_sharded(folder, run.layout.params(run.model))
