"""Settings of a training run. gin binds these; each checks itself."""

from __future__ import annotations

import dataclasses

from tulu_jax.data.config import DataConfig
from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_field_types, check_used, set_paths
from tulu_jax.models import ComputeConfig, ModelConfig
from tulu_jax.models.lora import LoraConfig
from tulu_jax.parallel import MeshConfig
from tulu_jax.train.loss import NORMALIZATIONS


def _check(config: object, name: str, ok: bool, expected: str) -> None:
    if not ok:
        raise ConfigError(
            f"{type(config).__name__}.{name} is out of range",
            got=getattr(config, name),
            expected=expected,
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Adafactor with linear warm-up and linear decay to 0, and clipping by global norm.

    Defaults are the paper's for 7B and 13B (specs: open-instruct
    `scripts/finetune_with_accelerate.sh@e44fcf588`).

    Raises:
      ConfigError: a value outside its range.
    """

    learning_rate: float = 2e-5
    """Peak learning rate, > 0."""
    warmup_ratio: float = 0.03
    """Share of all steps over which the rate climbs from 0: int(ratio x steps); in [0, 1)."""
    weight_decay: float = 0.0
    """Decoupled decay, >= 0, applied to every weight."""
    b1: float = 0.9
    """AdamW's decay of the first moment, in [0, 1)."""
    b2: float = 0.999
    """AdamW's decay of the second moment, in [0, 1)."""
    eps: float = 1e-8
    """Added to AdamW's root of the second moment, > 0."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this global norm; None never clips."""
    name: str = "adamw"
    """`adamw`: two moments a weight. `adafactor`: no first moment, and of a matrix's second one
    only means of its rows and columns (transformers' `--optim adafactor`)."""
    moment_dtype: str = "float32"
    """Dtype of AdamW's first moment: float32, or bfloat16 for two bytes a weight less. The second
    is float32 always: in bfloat16 its small steps (1 - b2) would be rounded away."""
    factor_min_size: int = 128
    """Adafactor keeps means only of matrices whose two largest sides are at least this long."""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_field_types(self)
        _check(self, "learning_rate", self.learning_rate > 0, "a number above 0")
        _check(self, "warmup_ratio", 0 <= self.warmup_ratio < 1, "a share in [0, 1)")
        _check(self, "weight_decay", self.weight_decay >= 0, "0 or more")
        _check(self, "b1", 0 <= self.b1 < 1, "a number in [0, 1)")
        _check(self, "b2", 0 <= self.b2 < 1, "a number in [0, 1)")
        _check(self, "eps", self.eps > 0, "a number above 0")
        _check(self, "clip_norm", self.clip_norm is None or self.clip_norm > 0, "above 0, or None")
        _check(self, "factor_min_size", self.factor_min_size > 0, "a whole number above 0")
        names, dtypes = ("adamw", "adafactor"), ("float32", "bfloat16")
        _check(self, "name", self.name in names, " or ".join(names))
        _check(self, "moment_dtype", self.moment_dtype in dtypes, " or ".join(dtypes))
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

    model_dir: str
    """The run folder: checkpoints, logs, plots, the resolved settings."""
    data: DataConfig
    model: ModelConfig | None = None
    """Shape of the model; None takes it from `initial_checkpoint`."""
    compute: ComputeConfig = ComputeConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    initial_checkpoint: str | None = None
    """Weights to start from: a run folder, or a Hugging Face folder. None starts at random."""
    lora: LoraConfig | None = None
    """Train low-rank adapters beside frozen weights; None trains every weight."""
    train_steps: int | None = None
    """Optimizer steps in all; None trains for `data.epochs` epochs."""
    micro_batches: int = 1
    """Parts into which a batch is cut, their gradients added: less memory, the same result."""
    loss_normalization: str = "token"
    """`token`: mean over the loss tokens of the global batch. `paper`: mean within each group of
    `paper_rows` rows, then over the groups that have loss, as the paper's per-device micro-batches
    gave. `paper_accumulate`: as `paper`, over all groups of a full batch."""
    paper_rows: int = 2
    eval_period: int = 100
    """Steps between held-out losses; 0 never."""
    log_period: int = 10
    checkpoint_period: int = 500
    """Steps between checkpoints; the last step is always saved."""
    keep_checkpoints: int = 2
    seed: int = 0
    """Seeds fresh weights; the order of the data has `data.seed`."""
    wandb: bool = False
    """Also log to Weights & Biases, when it is installed."""
    profile_steps: int = 0
    """Steps, from the third of a process on, traced for xprof into the run folder."""
    grace_s: float = 30.0
    """Seconds from SIGTERM until the machine may be gone: the run says whether its save made it."""
    on_bad_step: str = "stop"
    """A step whose loss or gradient norm is not finite, or whose norm is above `bad_grad_norm`:
    `stop` ends the run, `skip` leaves the weights as they were and goes on to the next batch."""
    bad_steps_limit: int = 10
    """More skipped steps than this in a run end it."""
    bad_grad_norm: float | None = None
    """Gradient norm (before clipping) above which a step is bad; None: any finite one is good."""
    peer_timeout_s: float = 60.0
    """With several processes: seconds of silence after which one counts as dead and ends all;
    0: never."""
    stall_factor: float = 20.0
    """Stacks of all threads are written when no step has ended for this many times the median
    step; 0 never."""
    stall_minimum_s: float = 120.0
    """But not before this many seconds."""
    stall_ends: bool = False
    """End the process on a stall, for whoever starts it again."""

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        check_field_types(self)
        set_paths(self, model_dir="MODEL_DIR", initial_checkpoint="INITIAL_CHECKPOINT_PATH")
        _check(self, "train_steps", self.train_steps is None or self.train_steps > 0, "above 0")
        for name in ("micro_batches", "paper_rows", "log_period", "checkpoint_period"):
            _check(self, name, getattr(self, name) > 0, "a whole number above 0")
        _check(self, "keep_checkpoints", self.keep_checkpoints > 0, "a whole number above 0")
        _check(self, "eval_period", self.eval_period >= 0, "0 or more")
        _check(self, "stall_factor", self.stall_factor >= 0, "0 or more")
        _check(self, "stall_minimum_s", self.stall_minimum_s > 0, "above 0")
        _check(self, "profile_steps", self.profile_steps >= 0, "0 or more")
        _check(self, "bad_steps_limit", self.bad_steps_limit >= 0, "0 or more")
        _check(self, "grace_s", self.grace_s > 0, "seconds above 0")
        _check(self, "peer_timeout_s", self.peer_timeout_s >= 0, "seconds, or 0 for never")
        _check(self, "on_bad_step", self.on_bad_step in ("stop", "skip"), "stop or skip")
        norm = self.bad_grad_norm
        _check(self, "bad_grad_norm", norm is None or norm > 0, "above 0, or None")
        known = NORMALIZATIONS
        _check(self, "loss_normalization", self.loss_normalization in known, " or ".join(known))
        rows = self.data.batch_size
        _check(self, "micro_batches", rows % self.micro_batches == 0,
               f"a divisor of the batch size {rows}")  # fmt: skip
        if self.loss_normalization != "token":
            _check(self, "paper_rows", rows % self.paper_rows == 0,
                   f"a divisor of the batch size {rows}")  # fmt: skip
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
        token = self.loss_normalization == "token"
        check_used(self, "LOSS_NORMALIZATION='token'", "paper_rows", unless=not token)
        check_used(self, "ON_BAD_STEP='stop'", "bad_steps_limit", unless=self.on_bad_step == "skip")
        watched = self.stall_factor > 0
        check_used(self, "STALL_FACTOR=0", "stall_minimum_s", "stall_ends", unless=watched)
