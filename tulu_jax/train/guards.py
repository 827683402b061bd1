"""Checks that run by themselves before and during training, each refusing what fails silently."""

from __future__ import annotations

from typing import Any

import numpy as np

from tulu_jax.axes import Batch
from tulu_jax.errors import ConfigError, GuardError
from tulu_jax.models import ModelConfig


def check_model_fits_data(
    config: ModelConfig, *, vocab_size: int, bos_id: int | None, eos_id: int, length: int
) -> None:
    """Refuses a tokenizer or row length the model cannot take.

    Raises:
      ConfigError: token ids beyond the embedding, another BOS or EOS, or rows too long.
    """
    if vocab_size > config.vocab_size:
        raise ConfigError(
            "tokenizer has more tokens than the model",
            got=f"{vocab_size} tokens, vocab_size={config.vocab_size}",
            expected="vocab_size of at least the tokenizer's size",
            do="use the model's own tokenizer, or set the model's vocab_size",
        )
    if (bos_id is not None and bos_id != config.bos_id) or eos_id not in config.stop_ids:
        raise ConfigError(
            "tokenizer and model disagree on special tokens",
            got=f"tokenizer bos={bos_id}, eos={eos_id}; model bos={config.bos_id}, "
            f"eos={config.eos_id}",
            expected="the same ids",
        )
    if length > config.max_length:
        raise ConfigError(
            "rows are longer than the model's sequences",
            got=f"length {length}, max_length {config.max_length}",
            expected=f"at most {config.max_length}",
            do="lower TASK_FEATURE_LENGTHS",
        )


def check_batch(batch: Batch, *, step: int, bos_id: int | None, eos_id: int | None = None) -> None:
    """Refuses a batch that trains nothing, trains everything, or has a conversation without BOS.

    BOS is not looked for when the tokenizer has none (Pythia), and only at the start when it is
    the tokenizer's EOS too (OPT). Looks at every conversation of the host's rows; NumPy only,
    well under a millisecond a row.

    Raises:
      GuardError: an empty or total mask, or not exactly one BOS at the start, with the row named.
    """
    segments, mask, tokens = batch["segment_ids"], batch["loss_mask"] > 0, batch["tokens"]
    real = segments > 0
    if not real.any():
        return
    starts = real & (batch["positions"] == 0)
    if bos_id is not None:
        _refuse_rows(
            (starts & (tokens != bos_id)).any(axis=1),
            "conversation does not start with BOS", batch, step, "exactly one BOS, at its start",
        )  # fmt: skip
    if bos_id is not None and bos_id != eos_id:
        _refuse_rows(
            (real & ~starts & (tokens == bos_id)).any(axis=1),
            "conversation has more than one BOS", batch, step, "exactly one BOS, at its start",
        )  # fmt: skip
    _refuse_rows(
        real.any(axis=1) & ~(mask & real).any(axis=1),
        "row trains nothing: its loss mask is empty", batch, step, "at least one loss token",
    )  # fmt: skip
    _refuse_rows(
        real.any(axis=1) & ~(real & ~mask & ~starts).any(axis=1),
        "row trains everything: its loss mask is total", batch, step, "prompts without loss",
    )  # fmt: skip


def _refuse_rows(bad: np.ndarray, what: str, batch: Batch, step: int, expected: str) -> None:
    if not bad.any():
        return
    row = int(np.argmax(bad))
    used = int((batch["segment_ids"][row] > 0).sum())
    shown = " ".join(
        f"{token}{'*' if trained else ''}"
        for token, trained in zip(
            batch["tokens"][row, : min(used, 40)], batch["loss_mask"][row], strict=False
        )
    )
    raise GuardError(
        what,
        got=f"tokens (* carries loss) {shown}{' ...' if used > 40 else ''}",
        at=f"step {step}, row {row}",
        expected=expected,
        do="look at the data with `tulu data inspect`",
    )


def check_finite(step: int, metrics: dict[str, Any], *, last_checkpoint: int | None) -> None:
    """Stops a run whose loss or gradient is NaN or infinite.

    Raises:
      GuardError: naming the step and the checkpoint to go back to.
    """
    good = "none yet" if last_checkpoint is None else last_checkpoint
    for name in ("loss", "grad_norm"):
        value = float(metrics[name])
        if not np.isfinite(value):
            raise GuardError(
                f"{name} is not finite",
                got=value,
                at=f"step {step}",
                expected="a finite number",
                do=f"last good checkpoint: {good}; lower LEARNING_RATE, or look at the rows of "
                "that step with `tulu data inspect`",
            )
