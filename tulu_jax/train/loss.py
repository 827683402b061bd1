"""The shift, and what each position counts: the only place where either is decided."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tulu_jax.axes import Batch
from tulu_jax.models import ComputeConfig, ModelConfig, head_weight, hidden_states
from tulu_jax.models.apply import AnyArray
from tulu_jax.ops import token_nll, weighted_nll
from tulu_jax.train.terms import TERMS


def targets_and_mask(batch: Batch) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
    """The token each position must predict, and 1 where that prediction is trained.

    Position t predicts token t + 1, and is trained if token t + 1 carries loss and belongs to the
    same conversation. Two conversations packed in a row of 8, `.` for 0:

        tokens       1 7 8 2  1 5 9 2
        loss_mask    . . x x  . . x x
        segment_ids  1 1 1 1  2 2 2 2
        targets      7 8 2 1  5 9 2 0
        mask         . x x .  . x x .

    The first answer token (8) and the end of the answer (2) are trained; the last position of
    each conversation predicts nothing.
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]
    targets = _left(tokens)
    same = (_left(segments) == segments) & (segments > 0)
    mask = (_left(batch["loss_mask"]) > 0) & same
    return targets, mask.astype(jnp.float32)


def _left(x: Int[AnyArray, "B T"]) -> Int[Array, "B T"]:
    return jnp.pad(x[:, 1:], ((0, 0), (0, 1)))


NORMALIZATIONS = ("token", "paper", "paper_accumulate")
"""Ways to divide the loss of a batch; `loss_weights` says what each does."""


def loss_weights(
    mask: Float[Array, "B T"], *, normalization: str, paper_rows: int
) -> Float[Array, "B T"]:
    """What each position counts, so that the loss is the plain sum of weight x nll.

    `token`: 1 / all loss tokens of the global batch. `paper`: 1 / (loss tokens of its group of
    `paper_rows` rows x groups that have any), the mean of per-micro-batch means. Rows of 3 and 1
    loss tokens, and two empty ones, as in the last batch of an epoch:

        mask                            1 1 1 .         1 . . .   . . . .   . . . .
        token                           1/4 each
        paper, paper_rows=1             1/6 1/6 1/6     1/2
        paper_accumulate, paper_rows=1  1/12 1/12 1/12  1/4

    `paper_accumulate` divides by all groups, empty ones too: what gradient accumulation by a fixed
    number of micro-batches does to a batch that is not full (huggingface/accelerate, `accumulate`).

    Since denominators are fixed before any splitting, micro-batches, devices and hosts cannot
    change the loss. A batch or group without loss tokens has weight 0 throughout.
    """
    rows = mask.shape[0] if normalization == "token" else paper_rows
    groups = mask.reshape(-1, rows * mask.shape[1])
    counts = groups.sum(axis=1, keepdims=True)
    filled = jnp.sum(counts > 0) if normalization == "paper" else groups.shape[0]
    return (groups / (jnp.maximum(counts, 1.0) * jnp.maximum(filled, 1))).reshape(mask.shape)


def weighted_loss(
    config: ModelConfig,
    compute: ComputeConfig,
    params: Any,
    batch: Batch,
    weights: Float[Array, "B T"],
    terms: Mapping[str, float] = MappingProxyType({}),
) -> Float[Array, ""]:
    """The sum over positions of weight x nll, in nats: differentiable by `params`.

    To it come the `terms`, each times its factor.
    """
    return loss_in_parts(config, compute, params, batch, weights, terms)[0]


def loss_in_parts(
    config: ModelConfig,
    compute: ComputeConfig,
    params: Any,
    batch: Batch,
    weights: Float[Array, "B T"],
    terms: Mapping[str, float],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`weighted_loss`, and what it is made of, by the names of `part_names`: no factor applied."""
    targets, _ = targets_and_mask(batch)
    states, head = _states(config, compute, params, batch), head_weight(config, params)
    loss = nll = weighted_nll(states, head, targets, weights)
    values = {name: TERMS[name](batch, targets, weights, states, head) for name in terms}
    for name, value in values.items():
        loss = loss + terms[name] * value
    parts = [nll, *values.values()]
    return loss, dict(zip(part_names(terms), parts, strict=True)) if terms else {}


def part_names(terms: Mapping[str, float]) -> list[str]:
    """`nll` and `terms/NAME` of each term; none without terms, where the loss is the nll."""
    return ["nll", *(f"terms/{name}" for name in terms)] if terms else []


def position_nll(
    config: ModelConfig, compute: ComputeConfig, params: Any, batch: Batch
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """The nll of every trained position (0 elsewhere), and the mask of those positions."""
    targets, mask = targets_and_mask(batch)
    states = _states(config, compute, params, batch)
    return token_nll(states, head_weight(config, params), targets, mask), mask


def _states(
    config: ModelConfig, compute: ComputeConfig, params: Any, batch: Batch
) -> Float[Array, "B T D"]:
    return hidden_states(
        config, params, batch["tokens"], batch["segment_ids"], batch["positions"], compute=compute
    )
