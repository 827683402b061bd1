"""Checks that run by themselves before and during training, each refusing what fails silently."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu_jax.axes import Batch
from tulu_jax.errors import ConfigError, GuardError
from tulu_jax.models import ModelConfig
from tulu_jax.train.flight import Row

if TYPE_CHECKING:
    from tulu_jax.checkpoint.manager import Checkpoints
    from tulu_jax.train.config import TrainConfig


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
            do="set TOKENIZER to the folder of the model's own tokenizer",
        )
    if length > config.max_length:
        raise ConfigError(
            "rows are longer than the model's sequences",
            got=f"length {length}, max_length {config.max_length}",
            expected=f"at most {config.max_length}",
            do="lower TASK_FEATURE_LENGTHS",
        )


def check_batch(batch: Batch, *, step: int, bos_id: int | None, bos_once: bool = True) -> None:
    """Refuses a batch that trains nothing, trains everything, or has a conversation without BOS.

    BOS is not looked for when there is none (Pythia, ChatML), and only at the start when it may
    stand for something else later (`Tokenizer.bos_once`). Looks at every conversation of the host's
    rows; NumPy only, well under a millisecond a row.

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
    if bos_id is not None and bos_once:
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
    do = (
        f"last good checkpoint: {good}; lower LEARNING_RATE, or look at the rows of that step "
        "with `tulu data inspect`"
    )
    if step <= 1:  # weights as they were given: no rate has moved them
        do = (
            "nothing has been trained yet: the weights that the run starts from are at fault "
            "(`tulu verify` compares them with transformers), or DTYPE is too narrow for them"
        )
    for name in ("loss", "grad_norm"):
        value = float(metrics[name])
        if not np.isfinite(value):
            raise GuardError(
                f"{name} is not finite",
                got=value,
                at=f"step {step}",
                expected="a finite number",
                do=do,
            )


class BadSteps:
    """What becomes of steps that would spoil the weights: the run stops, or they are skipped.

    A step is bad when its loss or gradient norm is not finite, or the norm is above `norm_limit`.
    Under `skip` the step itself left the state as it was (see `make_train_step`); here they are
    counted, over the whole run.
    """

    def __init__(self, *, limit: int | None, norm_limit: float | None, skipped: int = 0) -> None:
        """Stops at the first bad step when `limit` is None, else when more than `limit` are."""
        self._limit, self._norm_limit = limit, norm_limit
        self.skipped = skipped
        """Steps skipped since the run began."""

    @classmethod
    def of_run(cls, config: TrainConfig, checkpoints: Checkpoints) -> BadSteps:
        """Those of a run that goes on from its newest checkpoint, if it has one."""
        newest = checkpoints.latest()
        return cls(
            limit=config.bad_steps_limit if config.on_bad_step == "skip" else None,
            norm_limit=config.bad_grad_norm,
            skipped=0 if newest is None else checkpoints.meta(newest).get("skipped_steps", 0),
        )

    def meta(self) -> dict[str, int]:
        """What a checkpoint says of them."""
        return {"skipped_steps": self.skipped}

    def check(self, rows: list[Row], *, last_checkpoint: Callable[[], int | None]) -> None:
        """Looks at finished steps in their order; numbers updates, and marks skipped ones.

        Raises:
          GuardError: a step is bad and the run must not go on.
        """
        for row in rows:
            if row.metrics.get("skipped"):
                row.skipped = self._skip(row.step, row.metrics, last_checkpoint)
            else:
                self._refuse(row.step, row.metrics, last_checkpoint)
            row.update = row.step - self.skipped

    def _skip(
        self, step: int, metrics: dict[str, float], last_checkpoint: Callable[[], int | None]
    ) -> str:
        self.skipped += 1
        what = f"loss {metrics['loss']:.4g}, gradient norm {metrics['grad_norm']:.4g}"
        if self._limit is None or self.skipped > self._limit:
            raise GuardError(
                "too many bad steps were skipped",
                got=f"{self.skipped}, the last with {what}",
                at=f"step {step}",
                expected=f"at most BAD_STEPS_LIMIT={self._limit}",
                do=f"last checkpoint: {last_checkpoint()}; lower LEARNING_RATE, or look at the "
                "rows of those steps",
            )
        return (
            f"step {step:,} skipped, the weights are as before it: {what} "
            f"({self.skipped} of at most {self._limit})"
        )

    def _refuse(
        self, step: int, metrics: dict[str, float], last_checkpoint: Callable[[], int | None]
    ) -> None:
        norm = metrics["grad_norm"]
        if not np.isfinite([metrics["loss"], norm]).all():
            check_finite(step, metrics, last_checkpoint=last_checkpoint())
        if self._norm_limit is not None and norm > self._norm_limit:
            last = last_checkpoint()
            raise GuardError(
                "gradient norm is above BAD_GRAD_NORM",
                got=f"{norm:.4g}",
                at=f"step {step}",
                expected=f"at most {self._norm_limit:g}",
                do=f"last good checkpoint: {'none yet' if last is None else last}; lower "
                "LEARNING_RATE, or skip such steps with ON_BAD_STEP='skip'",
            )
