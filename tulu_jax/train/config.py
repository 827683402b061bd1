"""Settings of a training run. gin binds these; each checks itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from tulu_jax.data.config import DataConfig
from tulu_jax.errors import ConfigError
from tulu_jax.fields import (
    SHARE,
    above,
    check_field,
    check_fields,
    check_used,
    divisor,
    least,
    one_of,
    setting,
)
from tulu_jax.models import ComputeConfig, ModelConfig
from tulu_jax.models.lora import LoraConfig
from tulu_jax.parallel import MeshConfig
from tulu_jax.train.loss import NORMALIZATIONS
from tulu_jax.train.terms import TERMS

TASK_LIMIT = 50
"""Instances of a task that are asked during training, where none are said."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Adafactor with linear warm-up and linear decay to 0, and clipping by global norm.

    Defaults are the paper's for 7B and 13B (specs: open-instruct
    `scripts/finetune_with_accelerate.sh@e44fcf588`).

    Raises:
      ConfigError: a value outside its range.
    """

    learning_rate: float = setting(2e-5, above(0), macro="LEARNING_RATE", help="peak learning rate")
    warmup_ratio: float = setting(
        0.03,
        SHARE,
        macro="WARMUP_RATIO",
        help="share of the steps that warm up, int(ratio x steps)",
    )
    weight_decay: float = setting(
        0.0, least(0), macro="WEIGHT_DECAY", help="decoupled weight decay, of every weight"
    )
    b1: float = setting(0.9, SHARE, help="AdamW's decay of the first moment")
    b2: float = setting(0.999, SHARE, help="AdamW's decay of the second moment")
    eps: float = setting(1e-8, above(0), help="added to AdamW's root of the second moment")
    clip_norm: float | None = setting(
        1.0, above(0), macro="CLIP_NORM", help="global gradient norm to clip at; None never"
    )
    name: str = setting(
        "adamw", one_of("adamw", "adafactor"), macro="OPTIMIZER",
        help="'adamw', or 'adafactor' (transformers' `--optim adafactor`: no first moment, and of "
        "a matrix's second one only means of its rows and columns)",
    )  # fmt: skip
    moment_dtype: str = setting(
        "float32", one_of("float32", "bfloat16"), macro="MOMENT_DTYPE",
        help="'float32' or 'bfloat16': AdamW's first moment (in bfloat16 the second's small steps "
        "would be rounded away)",
    )  # fmt: skip
    factor_min_size: int = setting(
        128, above(0), help="Adafactor keeps means of matrices whose two largest sides have this"
    )

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_fields(self)
        if self.name == "adafactor" and self.moment_dtype != "float32":
            raise ConfigError(
                "Adafactor has no first moment",
                got=f"OPTIMIZER='adafactor' with MOMENT_DTYPE={self.moment_dtype!r}",
                expected="MOMENT_DTYPE only with OPTIMIZER='adamw'",
            )
        adam = self.name == "adamw"
        check_used(self, "OPTIMIZER='adafactor'", "b1", "b2", "eps", unless=adam)
        check_used(self, "OPTIMIZER='adamw'", "factor_min_size", unless=not adam)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Raises:
      ConfigError: a value outside its range.
    """

    model_dir: str = setting(
        path="place", macro="MODEL_DIR",
        help="run folder (required): checkpoints, logs, plots, the resolved settings",
    )  # fmt: skip
    data: DataConfig = setting()
    model: ModelConfig | None = setting(
        None, macro="MODEL", help="the model, as of a file of gin_configs/models; None takes the "
        "checkpoint's",
    )  # fmt: skip
    compute: ComputeConfig = ComputeConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    initial_checkpoint: str | None = setting(
        None, path="model", macro="INITIAL_CHECKPOINT_PATH",
        help="run folder or Hugging Face folder to start from; None: random",
    )  # fmt: skip
    lora: LoraConfig | None = setting(
        None, macro="LORA",
        help="@LoraConfig() trains adapters beside frozen weights; None trains every weight",
    )  # fmt: skip
    train_steps: int | None = setting(
        None, above(0), macro="TRAIN_STEPS", help="optimizer steps; None trains for EPOCHS"
    )
    micro_batches: int = setting(
        1, above(0), macro="MICRO_BATCHES",
        help="parts a batch is cut into to save memory; the result is the same",
    )  # fmt: skip
    loss_normalization: str = setting(
        "token", one_of(*NORMALIZATIONS), macro="LOSS_NORMALIZATION",
        help="'token': mean over the loss tokens of the global batch; 'paper': mean within each "
        "group of `paper_rows` rows, then over the groups that have loss, as the paper's "
        "per-device micro-batches gave; 'paper_accumulate': as 'paper', over all groups of a full "
        "batch",
    )  # fmt: skip
    paper_rows: int = setting(2, above(0), help="rows of a group of LOSS_NORMALIZATION='paper'")
    loss_terms: Mapping[str, float] = setting(
        factory=dict, help="factors of terms added to the loss, by name: docs/add_a_loss.md"
    )
    eval_period: int = setting(
        100, least(0), macro="EVAL_PERIOD", help="steps between held-out losses; 0 never"
    )
    eval_tasks: str | Sequence[str] = setting(
        (), macro="EVAL_TASKS",
        help="tasks of `tulu eval list` to ask during training: a name, several by commas, or a "
        "list; NAME:LIMIT asks so many instances in place of 50",
    )  # fmt: skip
    eval_tasks_period: int | None = setting(
        None, above(0), macro="EVAL_TASKS_PERIOD",
        help="steps between two times that EVAL_TASKS are asked; None takes EVAL_PERIOD",
    )  # fmt: skip
    eval_data_dir: str = setting(
        "data/eval", path=True, macro="EVAL_DATA_DIR",
        help="folder of the data of EVAL_TASKS, a folder each",
    )  # fmt: skip
    log_period: int = setting(10, above(0), macro="LOG_PERIOD", help="steps between log lines")
    checkpoint_period: int = setting(
        500, above(0), macro="CHECKPOINT_PERIOD",
        help="steps between checkpoints; the last step is always saved",
    )  # fmt: skip
    keep_checkpoints: int = setting(
        2, above(0), macro="KEEP_CHECKPOINTS", help="newest checkpoints kept"
    )
    seed: int = setting(0, macro="RANDOM_SEED", help="seed of data order and fresh weights")
    wandb: bool = setting(False, macro="WANDB", help="True also logs to Weights & Biases")
    profile_steps: int = setting(
        0, least(0), macro="PROFILE_STEPS",
        help="steps to trace for xprof, from the third of a process on; 0 none",
    )  # fmt: skip
    grace_s: float = setting(
        30.0, above(0), macro="GRACE_SECONDS", help="time from SIGTERM to the end of the machine"
    )
    on_bad_step: str = setting(
        "stop", one_of("stop", "skip"), macro="ON_BAD_STEP",
        help="'stop', or 'skip' steps with NaN or a gradient above BAD_GRAD_NORM: weights stay as "
        "they were, and the next batch is taken",
    )  # fmt: skip
    bad_steps_limit: int = setting(
        10, least(0), macro="BAD_STEPS_LIMIT", help="skipped steps that a run may have"
    )
    bad_grad_norm: float | None = setting(
        None, above(0), macro="BAD_GRAD_NORM",
        help="gradient norm before clipping above which a step is bad; None: any finite is good",
    )  # fmt: skip
    peer_timeout_s: float = setting(
        60.0, least(0), macro="PEER_TIMEOUT_SECONDS",
        help="silence after which another process counts as dead; 0: never",
    )  # fmt: skip
    stall_factor: float = setting(
        20.0, least(0), macro="STALL_FACTOR",
        help="median steps without a step after which stacks are written; 0 never",
    )  # fmt: skip
    stall_minimum_s: float = setting(
        120.0, above(0), macro="STALL_MINIMUM_SECONDS", help="but not before this many seconds"
    )
    stall_ends: bool = setting(
        False, macro="STALL_ENDS_RUN",
        help="True ends a process that stalls, for whoever starts it again",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_fields(self)
        rows = divisor(self.data.batch_size, "the batch size")
        check_field(self, "micro_batches", rows)
        if self.loss_normalization != "token":
            check_field(self, "paper_rows", rows)
        if unknown := sorted(self.loss_terms.keys() - TERMS.keys()):
            raise ConfigError(
                "TrainConfig.loss_terms has a term that is not there",
                got=", ".join(unknown),
                expected=f"some of {', '.join(sorted(TERMS)) or 'none'} (docs/add_a_loss.md)",
            )
        self._check_start()
        self._check_tasks()
        token = self.loss_normalization == "token"
        check_used(self, "LOSS_NORMALIZATION='token'", "paper_rows", unless=not token)
        check_used(self, "ON_BAD_STEP='stop'", "bad_steps_limit", unless=self.on_bad_step == "skip")
        watched = self.stall_factor > 0
        check_used(self, "STALL_FACTOR=0", "stall_minimum_s", "stall_ends", unless=watched)

    @property
    def limits(self) -> dict[str, int]:
        """How many instances of each of `eval_tasks` are asked, by name."""
        pairs = (name.partition(":") for name in self.eval_tasks)
        return {name: int(limit) if colon else TASK_LIMIT for name, colon, limit in pairs}

    def _check_tasks(self) -> None:
        """Makes a list of the tasks; refuses what is no task's name, and what would do nothing."""
        given = self.eval_tasks
        parts = [given] if isinstance(given, str) else given
        names = tuple(name.strip() for part in parts for name in part.split(",") if name.strip())
        object.__setattr__(self, "eval_tasks", names)
        for name in names:
            if not re.fullmatch(r"[^:\s]+(:0*[1-9][0-9]{0,8})?", name):
                raise ConfigError(
                    "EVAL_TASKS has a task that is not understood", got=repr(name),
                    expected="NAME, or NAME:LIMIT with a limit of 1 or more",
                )  # fmt: skip
        if len(self.limits) < len(names):
            raise ConfigError("EVAL_TASKS names a task twice", got=",".join(names))
        if names and not (self.eval_tasks_period or self.eval_period):
            raise ConfigError(
                "EVAL_TASKS would never be asked",
                got="EVAL_PERIOD=0 and EVAL_TASKS_PERIOD=None",
                expected="one of them above 0",
            )
        check_used(self, "no EVAL_TASKS", "eval_tasks_period", unless=bool(names))

    def _check_start(self) -> None:
        """Refuses a run without weights to start from, or to train."""
        if self.model is None and self.initial_checkpoint is None:
            raise ConfigError(
                "the run has no model",
                got="MODEL=None and INITIAL_CHECKPOINT_PATH=None",
                expected="at least one of them",
                do="include a file of gin_configs/models, or name a checkpoint to start from",
            )
        if self.lora is not None and self.data.add_tokens:
            raise ConfigError(
                "tokens cannot be added where the embedding is frozen: their rows would not learn",
                got=f"ADD_TOKENS={self.data.add_tokens!r} with LORA",
                expected="one of them only",
                do="train every weight, or choose a CHAT_TEMPLATE whose markers are text",
            )
        if self.lora is not None and self.initial_checkpoint is None:
            raise ConfigError(
                "adapters have no weights to stand beside",
                got="LORA with INITIAL_CHECKPOINT_PATH=None",
                expected="the model to adapt, as a run folder or a Hugging Face folder",
                do="set INITIAL_CHECKPOINT_PATH",
            )
