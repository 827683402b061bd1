"""AdamW and its learning-rate schedule."""

from __future__ import annotations

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
    """Clip by global norm, then AdamW; torch's defaults and update order.

    The optimizer's state has the same form with and without clipping, so a run may change that
    when it resumes.
    """
    adamw = optax.adamw(
        learning_rate_schedule(config, total_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    norm = config.clip_norm
    clip = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    return optax.chain(clip, adamw)
