"""Logits to the next token: greedy, temperature, top-k, top-p. Pure functions of arrays."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tulu_jax.errors import ConfigError
from tulu_jax.fields import PORTION, check_fields, least, setting

EXCLUDED = -jnp.inf
"""Logit of a token that may not be drawn."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Raises:
      ConfigError: a value is outside its range.
    """

    temperature: float = setting(
        0.0, least(0), help="0 takes the likeliest token; above it logits are divided by it"
    )
    top_p: float = setting(
        1.0, PORTION, help="draw from the smallest set of tokens with at least this mass"
    )
    top_k: int = setting(0, least(0), help="draw from the k likeliest tokens only; 0 for all")

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_fields(self)


MAX_SEED = 2**32 - 1


def check_seed(seed: int) -> None:
    """Passes for a seed of random draws.

    Raises:
      ConfigError: it is negative or has more than 32 bits.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(
            "seed is impossible", got=seed, expected=f"a whole number from 0 to {MAX_SEED}"
        )


def next_tokens(logits: Float[Array, "B V"], keys: Array, sampling: Sampling) -> Int[Array, " B"]:
    """The next token of every row.

    Args:
      logits: float32.
      keys: one random key a row, unused when the temperature is 0.
      sampling: how to choose; the order is temperature, top-k, top-p, as in transformers.
    """
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def keep_top_k(logits: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """`logits` with all but the k largest of each row excluded (of equals the first).

    k = 2    1.0  3.0  2.0  0.0   ->   -inf  3.0  2.0  -inf
    """
    order = jnp.argsort(-logits, axis=-1, stable=True)
    keep = jnp.broadcast_to(jnp.arange(logits.shape[-1]) < k, logits.shape)
    return _exclude(logits, order, keep)


def keep_top_p(logits: Float[Array, "B V"], p: float) -> Float[Array, "B V"]:
    """`logits` with all excluded but the smallest set whose probabilities sum to p or more.

    A token stays when those likelier than it sum to less than p, so one always stays:

    probabilities   0.1  0.5  0.3  0.1
    p = 0.5          -   kept  -    -
    p = 0.6          -   kept kept  -
    p = 0.85        kept kept kept  -      (of equals the first)
    """
    order = jnp.argsort(-logits, axis=-1, stable=True)
    probs = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    likelier = jnp.cumsum(probs, axis=-1) - probs
    return _exclude(logits, order, likelier < p)


def _exclude(logits: Array, order: Array, keep: Array) -> Array:
    """`logits` where `keep`, given in sorted `order`, is true; EXCLUDED elsewhere."""
    rows = jnp.arange(logits.shape[0])[:, None]
    return jnp.where(jnp.zeros(logits.shape, bool).at[rows, order].set(keep), logits, EXCLUDED)
