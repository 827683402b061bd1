"""AdamW, Adafactor and their learning-rate schedule."""

from __future__ import annotations

from typing import Any

import optax

from tulu_jax.train.config import OptimizerConfig


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """The rate of each step: linear from 0 to the peak, then linear to 0 at `total_steps`.

    As transformers' `get_linear_schedule_with_warmup`: step i of w warm-up steps has rate
    peak x i / w (so the first step moves nothing when w > 0), and step i after them
    peak x (total - i) / (total - w). With peak 1, 2 warm-up steps and 6 in all:

        step  0    1    2    3     4    5
        rate  0    0.5  1    0.75  0.5  0.25
    """
    warmup = int(config.warmup_ratio * total_steps)
    climb = optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1))
    fall = optax.linear_schedule(config.learning_rate, 0.0, max(total_steps - warmup, 1))
    return optax.join_schedules([climb, fall], [warmup]) if warmup else fall


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW with torch's update order, or Adafactor with transformers'.

    The optimizer's state has the same form with and without clipping, so a run may change that
    when it resumes.
    """
    schedule = learning_rate_schedule(config, total_steps)
    norm = config.clip_norm
    clip = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    if config.name == "adafactor":
        return optax.chain(clip, _adafactor(config, schedule))
    adamw = optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mu_dtype=config.moment_dtype,
    )
    return optax.chain(clip, adamw)


def _adafactor(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adafactor with the given rate, without a first moment and without scaling by the weights.

    optax.adafactor does not multiply weight decay by the rate, as torch's optimizers do.

    Differs from HF: the update of stacked layers is clipped as one array, not layer by layer.

    Source: Shazeer and Stern 2018, arXiv 1804.04235; transformers `optimization.py` `Adafactor`.
    """
    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=0.8, min_dim_size_to_factor=config.factor_min_size, epsilon=1e-30
        ),
        optax.clip_by_block_rms(1.0),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(schedule),
    )


def state_form(optimizer: dict[str, Any]) -> dict[str, Any]:
    """What decides the form of the optimizer's state, of the settings as a checkpoint keeps them.

    A run can go on from a checkpoint only with the same form; moments of another dtype are cast.
    """
    name = optimizer.get("name", "adamw")
    if name != "adafactor":
        return {"name": name}
    return {"name": name, "factor_min_size": optimizer["factor_min_size"]}
