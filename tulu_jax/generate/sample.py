"""Logits to the next token of every row: greedy, temperature, top-k, top-p, each row its own."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tulu_jax.errors import ConfigError
from tulu_jax.fields import PORTION, check_fields, least, setting

EXCLUDED = -jnp.inf
"""Logit of a token that may not be drawn."""

MAX_SEED = 2**32 - 1


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


class Controls(NamedTuple):
    """How every row chooses: the `Sampling`, random numbers and biases of its request."""

    temperature: Float[Array, " B"]
    top_p: Float[Array, " B"]
    top_k: Int[Array, " B"]
    """0 for all."""
    seed: Int[Array, " B"]
    stream: Int[Array, " B"]
    """Which of the seed's streams of random numbers: one a prompt and sample."""
    stops: Int[Array, "B stops"]
    """Tokens that end the row; -1, which is none, fills up."""
    bias_ids: Int[Array, "B biases"]
    """Tokens whose logits are raised; the vocabulary's size, which is none, fills up."""
    biases: Float[Array, "B biases"]
    tops: Int[Array, " B"]
    """Likeliest tokens that the row wants reported at each position."""


class Chosen(NamedTuple):
    """The next token of every row."""

    token: Int[Array, " B"]
    logprob: Float[Array, " B"]
    """Of the model itself: before biases, temperature and sets."""
    logprobs: Float[Array, "B V"]
    """Likewise, of all tokens."""


def check_seed(seed: int) -> None:
    """Passes for a seed of random draws.

    Raises:
      ConfigError: it is negative or has more than 32 bits.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(
            "seed is impossible", got=seed, expected=f"a whole number from 0 to {MAX_SEED}"
        )


def choose(
    logits: Float[Array, "B V"],
    controls: Controls,
    number: Int[Array, " B"],
    alive: Bool[Array, " B"],
) -> Chosen:
    """The next token of every row.

    What a row gets depends on nothing but its own logits and controls. Work that no row asks for
    is left out at run time, not by another program, whose roundings might differ.

    Args:
      logits: float32.
      controls: of every row.
      number: tokens each row has drawn so far: the draw's place in its random stream.
      alive: rows that count.
    """
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    raised = jax.lax.cond(
        jnp.any((controls.bias_ids < logits.shape[-1]) & alive[:, None]),
        lambda: jax.vmap(lambda row, ids, values: row.at[ids].add(values, mode="drop"))(
            logits, controls.bias_ids, controls.biases
        ),
        lambda: logits,
    )
    likeliest = jnp.argmax(raised, axis=-1).astype(jnp.int32)
    drawing = (controls.temperature > 0) & alive
    drawn = jax.lax.cond(
        jnp.any(drawing), lambda: draw(raised, controls, number, alive), lambda: likeliest
    )
    token = jnp.where(drawing, drawn, likeliest)
    logprob = jnp.take_along_axis(logprobs, token[:, None], axis=-1)[:, 0]
    return Chosen(token, logprob, logprobs)


def draw(
    logits: Float[Array, "B V"],
    controls: Controls,
    number: Int[Array, " B"],
    alive: Bool[Array, " B"],
) -> Int[Array, " B"]:
    """A random token of every row; the order is temperature, top-k, top-p, as in transformers."""
    warm = jnp.where(controls.temperature > 0, controls.temperature, 1.0)
    scaled = logits / warm[:, None]
    limited = ((controls.top_k > 0) | (controls.top_p < 1)) & (controls.temperature > 0) & alive
    kept = jax.lax.cond(
        jnp.any(limited),
        lambda: keep_likeliest(scaled, controls.top_k, controls.top_p),
        lambda: scaled,
    )
    keys = jax.vmap(_key)(controls.seed, controls.stream, number)
    return jax.vmap(jax.random.categorical)(keys, kept).astype(jnp.int32)


def _key(seed: Array, stream: Array, number: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), number)


def keep_likeliest(
    logits: Float[Array, "B V"], top_k: Int[Array, " B"], top_p: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """`logits` with all but the likeliest tokens excluded: the k largest, and of them a mass of p.

    A token stays when those likelier than it sum to less than p, so one always stays; of equals
    the first comes first.

    probabilities        0.1  0.5  0.3  0.1
    k = 2                 -   kept kept  -
    p = 0.5               -   kept  -    -
    p = 0.6               -   kept kept  -
    p = 0.85             kept kept kept  -
    k = 2, p = 0.6        -   kept  -    -     (0.5 of the 0.8 that are left is more than 0.6)

    Args:
      logits: of every token.
      top_k: 0 keeps all.
      top_p: 1 keeps all.
    """
    rank = jnp.arange(logits.shape[-1])
    order = jnp.argsort(-logits, axis=-1, stable=True)
    most = jnp.where(top_k > 0, top_k, logits.shape[-1])[:, None]
    fallen = jnp.where(rank < most, jnp.take_along_axis(logits, order, axis=-1), EXCLUDED)
    probs = jax.nn.softmax(fallen, axis=-1)
    likelier = jnp.cumsum(probs, axis=-1) - probs
    # The first also stays where p is too small for float32, or a tiny temperature made infinities.
    enough = (likelier < top_p[:, None]) | (top_p[:, None] >= 1) | (rank == 0)
    keep = (rank < most) & enough
    rows = jnp.arange(logits.shape[0])[:, None]
    kept = jnp.zeros(logits.shape, bool).at[rows, order].set(keep)
    return jnp.where(kept, logits, EXCLUDED)
