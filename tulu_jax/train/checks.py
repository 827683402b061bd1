"""What settings, tokenizer, model and run folder tell before any data is read.

Preparing data may take hours: whatever can be known to be wrong without it is refused first, by
`tulu train` and by `tulu train --print_config` alike.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tulu_jax.chat import Message, Tokenizer, encode
from tulu_jax.checkpoint.arrays import (
    CheckpointReader,
    checkpoints_dir,
    complete_steps,
    read_meta,
)
from tulu_jax.checkpoint.manager import (
    is_run,
    refuse_adapters,
    refuse_imported,
)
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import prepare_options
from tulu_jax.data.exclude import read_exclusion
from tulu_jax.data.mixtures import resolve
from tulu_jax.data.specs import how_read, locate_raw_dir
from tulu_jax.errors import CheckpointError, ConfigError
from tulu_jax.models import ModelConfig, config_from_dict, config_to_dict
from tulu_jax.parallel.rules import check_overrides
from tulu_jax.places import Place, is_address
from tulu_jax.train.config import TrainConfig
from tulu_jax.train.format import with_added_tokens
from tulu_jax.train.guards import check_model_fits_data
from tulu_jax.train.optimizer import state_form
from tulu_jax.train.trained import what_is_trained

MUST_AGREE = {
    "model": "model",
    "chat_template": "chat template",
    "tokenizer": "tokenizer",
    "stores": "dataset",
    "rows": "making of rows",
    "lora": "adapter or base",
    "optimizer_form": "kind of optimizer",
}
"""Parts of a checkpoint's metadata that must equal the run's, or the resumed run is another run;
and what messages call them."""

EMPTY_ANSWER: Message = {"role": "assistant", "content": ""}


def check_before_data(config: TrainConfig) -> ModelConfig:
    """The run's model, once all that can be known without reading data is known to fit.

    Raises:
      TuluError: the first thing that does not.
    """
    refuse_imported(config.model_dir)
    _check_folders({"MODEL_DIR": config.model_dir, "DATA_DIR": config.data.data_dir})
    _check_length(config.train_steps, config.data.epochs)
    check_overrides(config.mesh.axis_rules)
    _check_wandb(config.wandb)
    _check_names(config.data)
    model = config.model or initial_model_config(str(config.initial_checkpoint))
    tokenizer = prepare_options(config.data).load_tokenizer()
    added, path = config.data.add_tokens, config.initial_checkpoint
    model = with_added_tokens(model, tokenizer, added=added, checkpoint=path)
    tokenizer = tokenizer.fitting(model.vocab_size)
    check_model_fits_data(
        model,
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        length=config.data.length,
    )
    _check_rows_hold_answers(tokenizer, config.data.length)
    newest = _newest_meta(config.model_dir)
    if newest is not None:  # of INITIAL_CHECKPOINT_PATH it reads the frozen weights only
        _check_goes_on(config, model, tokenizer, *newest)
        _, path = what_is_trained(model, config.lora).paths(path)
    if path is not None:
        open_initial(model, path)
    return model


def _check_folders(folders: Mapping[str, str]) -> None:
    """Refuses folders to write to in whose place, or above it, there is a file."""
    for name, folder in folders.items():
        if is_address(folder):
            continue
        place = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
        if not place.is_dir():
            raise ConfigError(
                f"{name} is a file, or below one",
                got=f"the file {place}",
                expected="a folder, or a place where one can be made",
                do=f"set another {name}, or move the file away",
            )


def _check_rows_hold_answers(tokenizer: Tokenizer, length: int) -> None:
    """Refuses rows in which not even a conversation without any text has room."""
    shortest = len(encode([{"role": "user", "content": ""}, EMPTY_ANSWER], tokenizer).tokens)
    if length < shortest:
        raise ConfigError(
            "rows are too short for any conversation",
            got=f"{length} tokens",
            expected=f"at least {shortest}: what the chat template writes around no text",
            do="raise TASK_FEATURE_LENGTHS",
        )


def _check_length(steps: int | None, epochs: int | None) -> None:
    if (steps is None) == (epochs is None):
        raise ConfigError(
            "the length of the run is not clear",
            got=f"TRAIN_STEPS={steps} and EPOCHS={epochs}",
            expected="one of them to be a number, the other None",
            do="set TRAIN_STEPS or EPOCHS"
            if steps is None
            else "add --gin.EPOCHS=None for so many steps, --gin.TRAIN_STEPS=None for the epochs",
        )


def _check_wandb(wanted: bool) -> None:
    if wanted and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "Weights & Biases is asked for but not installed",
            got="WANDB=True",
            do="`pip install wandb`, or leave it off",
        )


def _check_names(data: DataConfig) -> None:
    """Refuses datasets, options and raw folders that are not there, files of the user's own whose
    first records are of no known shape, and exclude files that are none or of other tasks.
    """
    specs = prepare_options(data).specs(data.mixture)
    read_exclusion(data.exclude).check_tasks(spec.task_name for spec in specs)
    for spec in specs:
        locate_raw_dir(spec, data.raw_dir)
        how_read(spec, data.raw_dir)
    resolve(data.mixture, max_examples=data.max_examples, rates=data.rates, seeds=data.seeds)


def _newest_meta(run: str) -> tuple[int, dict[str, Any]] | None:
    """Step and metadata of the newest checkpoint; None where there is none that can be read.

    A damaged one is set aside by the run itself, aloud, and the one before it taken.
    """
    steps = complete_steps(run)
    if not steps:
        return None
    path = checkpoints_dir(run) / str(steps[-1]) / "meta" / "metadata"
    try:
        return steps[-1], read_meta(path)
    except CheckpointError:
        return None


def _check_goes_on(
    config: TrainConfig, model: ModelConfig, tokenizer: Tokenizer, step: int, saved: dict[str, Any]
) -> None:
    """Refuses settings with which the run could not go on from its own newest checkpoint."""
    where = checkpoints_dir(config.model_dir) / str(step)
    known = {
        "model": config_to_dict(model),
        "chat_template": tokenizer.template.name,
        "tokenizer": tokenizer.fingerprint,
        "rows": row_settings(config.data),
        "optimizer_form": state_form(dataclasses.asdict(config.optimizer)),
    }
    # What else makes the rows is known once the data are open: then all of it is compared.
    rows = {name: value for name, value in saved.get("rows", {}).items() if name in known["rows"]}
    check_same_run({**saved, "rows": rows}, known, where=where)
    if config.train_steps is not None:
        check_not_beyond(step, config.train_steps, where=where)


def row_settings(data: DataConfig) -> dict[str, Any]:
    """What makes rows of stores, as far as settings alone tell, as checkpoints keep it."""
    return {
        "seed": data.seed,
        "length": data.length,
        "batch_size": data.batch_size,
        "packing": data.packing,
        "heldout_examples": data.heldout_examples,
        "encoding": data.encoding,
    }


def check_not_beyond(step: int, total_steps: int, *, where: Place) -> None:
    """Refuses to go on from a checkpoint that is past the end of the run.

    Raises:
      ConfigError: `step` is greater than `total_steps`.
    """
    if step > total_steps:
        raise ConfigError(
            "the run has gone further than it is to go",
            got=f"step {step:,}",
            at=where,
            expected=f"at most the {total_steps:,} steps that are asked for",
            do="raise TRAIN_STEPS or EPOCHS to go on, or start anew with another MODEL_DIR",
        )


def check_same_run(saved: dict[str, Any], current: dict[str, Any], *, where: Place) -> None:
    """Refuses to resume a checkpoint of another model, tokenizer or data.

    Parts that `current` does not name are not looked at.

    Raises:
      CheckpointError: naming the first part that differs, old and new.
    """
    for part, name in MUST_AGREE.items():
        if part not in current:
            continue
        old, new = saved.get(part), current[part]
        if part == "chat_template" and old is None:
            old = "tulu"  # of before there was a choice
        if part == "optimizer_form" and old is None:
            old = state_form(saved.get("optimizer", {}))  # of before there was a choice
        if part == "model" and isinstance(old, dict):
            old = config_to_dict(config_from_dict(old))  # fills in fields that are newer
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            old = {key: old.get(key) for key in changed}
            new = {key: new.get(key) for key in changed}
        raise CheckpointError(
            f"checkpoint is of a run with another {name}",
            got=f"{new} now",
            at=where,
            expected=f"{old}, as saved",
            do="restore the old settings, or start a new run with another MODEL_DIR",
        )


def initial_model_config(path: str) -> ModelConfig:
    """The model of a run folder or a Hugging Face folder.

    Raises:
      CheckpointError: there is neither at `path`.
    """
    from tulu_jax.checkpoint import hf

    return CheckpointReader(path).config if is_run(path) else hf.open_folder(path).config


def open_initial(model: ModelConfig, path: str, *, dtype: str = "float32") -> Any:
    """A reader of the Hugging Face folder that a run starts from; None for a run folder.

    A Hugging Face folder may have fewer tokens than the model: rows are added as `resize` says.

    Raises:
      CheckpointError: it is of another model, or holds adapters only.
    """
    if is_run(path):
        saved = CheckpointReader(path)
        if saved.config != model:
            raise _of_another_model(saved.config, path, model)
        refuse_adapters(saved)
        return None
    from tulu_jax.checkpoint import hf
    from tulu_jax.checkpoint.resize import resized

    folder = resized(hf.open_folder(path, dtype), model.vocab_size)
    # Which token pads is of no account in training: its id may differ, as it does among copies.
    if dataclasses.replace(folder.config, pad_id=model.pad_id) != model:
        raise _of_another_model(folder.config, path, model)
    return folder


def _of_another_model(found: ModelConfig, path: str, expected: ModelConfig) -> CheckpointError:
    return CheckpointError(
        "initial checkpoint is of another model", got=found, at=path, expected=expected
    )
