"""What runs on the devices: reading a piece of a prompt, decoding, scoring, copying rows.

Shapes are few and chosen by the request alone (the length of a piece), or fixed (the number of
rows): so what a request gets does not depend on what runs beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from tulu_jax.generate.sample import Controls, choose
from tulu_jax.generate.weights import Weights
from tulu_jax.models import Cache, ComputeConfig, Kernel, LayerCache, ModelConfig, Place
from tulu_jax.models.layers import CACHE_AXES, constrain_cache
from tulu_jax.models.weight import spec_of
from tulu_jax.ops.attention.cached import BLOCK, order_blocks
from tulu_jax.ops.attention.choice import mesh_in_force
from tulu_jax.ops.attention.decoding import Heads
from tulu_jax.ops.transposed import product

DISPATCH_TOKENS = 64
"""Most tokens of a row that one dispatch decodes."""
MAX_TOPS = 20
"""Most likely tokens that are reported at a position, as in OpenAI's interface."""
SCORED_ROWS = 64
"""Positions whose logits are held at one time."""

Layers = list[LayerCache]
Tell = TypeVar("Tell")


class Rows(NamedTuple):
    """Where every row stands."""

    last: Int[Array, " B"]
    """Newest token, not yet in the cache."""
    slot: Int[Array, " B"]
    """The slot, and position, that `last` belongs in."""
    made: Int[Array, " B"]
    """Tokens generated so far."""
    limit: Int[Array, " B"]
    """Tokens to generate at most."""
    alive: Bool[Array, " B"]


class Decoded(NamedTuple):
    """What one dispatch added; of every row as many entries count as its `made` grew by."""

    tokens: Int[Array, "B chunk"]
    logprobs: Float[Array, "B chunk"]
    top_tokens: Int[Array, "B chunk tops"]
    top_logprobs: Float[Array, "B chunk tops"]


class Scored(NamedTuple):
    """Log-probabilities at the positions of a piece of a row."""

    logprobs: Float[Array, " T"]
    """Of each position's target, the token after it."""
    greedy: Bool[Array, " T"]
    """Whether no token is likelier than the target."""
    top_tokens: Int[Array, "T tops"]
    top_logprobs: Float[Array, "T tops"]


class Steps(NamedTuple):
    """The compiled functions of a model."""

    read: Callable[..., Any]
    decode: Callable[..., Any]
    score: Callable[..., Any]
    weigh: Callable[..., Any]
    copy: Callable[..., Any]
    clear: Callable[..., Any]


@lru_cache
def compiled_steps(
    config: ModelConfig, compute: ComputeConfig, kernel: str, platform: str
) -> Steps:
    """The functions below, jitted once a process for models of one config.

    `kernel` is the attention kernel of decoding, by name; `platform` what they are compiled for.
    """
    model: Any = {"config": config, "compute": compute}
    donated: Any = {"donate_argnames": ("layers",), "compiler_options": _options(platform)}
    return Steps(
        jax.jit(partial(read, **model), **donated),
        jax.jit(partial(decode, kernel=Kernel(kernel), **model), **donated),
        jax.jit(partial(score, **model), static_argnames=("tops",), **donated),
        jax.jit(partial(weigh, **model), **donated),
        jax.jit(copy, **donated),
        jax.jit(clear, **donated),
    )


def _options(platform: str) -> dict[str, int]:
    """How XLA compiles: for CPUs lightly, unless XLA_FLAGS says.

    That takes two thirds of the time, and the first answer waits for it; a step of decoding, whose
    work is products that are compiled already, was a fifth faster so (58M weights, 16 rows).
    """
    name = "xla_backend_optimization_level"
    if platform != "cpu" or name in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {name: 1}


def heads_of(config: ModelConfig) -> Heads:
    """The heads of a model's attention."""
    return Heads(config.num_heads, config.num_kv_heads, config.head_dim)


def init_layers(config: ModelConfig, rows: int, length: int, dtype: str) -> Layers:
    """An empty cache for rows of up to `length` tokens, its heads split as the mesh splits them."""
    shape = (rows, config.num_kv_heads, length, config.head_dim)
    if mesh_in_force().empty:
        return _zeros(shape, dtype, config.num_layers)
    return _split_zeros(shape, dtype, config.num_layers)


def told(values: Tell) -> Tell:
    """`values` whole on every device, where there is a mesh: each process reads its own copy."""
    if mesh_in_force().empty:
        return values
    return jax.lax.with_sharding_constraint(values, PartitionSpec())


def cache_spec() -> PartitionSpec:
    """Where the rules in force put the arrays of a layer's cache."""
    return spec_of(CACHE_AXES)


def _zeros(shape: tuple[int, ...], dtype: str, count: int) -> Layers:
    return [LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(count)]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _split_zeros(shape: tuple[int, ...], dtype: str, count: int) -> Layers:
    """Likewise, made where it lies: no device has room for the whole."""
    return [constrain_cache(layer) for layer in _zeros(shape, dtype, count)]


def _run(
    weights: Weights,
    layers: Layers,
    tokens: Int[Array, "B T"],
    place: Place,
    config: ModelConfig,
    compute: ComputeConfig,
) -> tuple[Float[Array, "B T D"], Layers]:
    model: Any = config.decoder(compute)
    positions = place.slots[:, None] + jnp.arange(tokens.shape[1])
    cache = Cache(weights.layers, layers, place)
    return model.apply(weights.outer, tokens, jnp.ones_like(tokens), positions, cache)


def read(
    weights: Weights,
    layers: Layers,
    tokens: Int[Array, "1 T"],
    row: Int[Array, ""],
    start: Int[Array, ""],
    *,
    config: ModelConfig,
    compute: ComputeConfig,
) -> Layers:
    """The cache with a piece of a prompt: T tokens of one row from slot `start` on.

    Tokens that only fill the piece up are written too; nothing sees them before they are
    overwritten.
    """
    return _run(weights, layers, tokens, _at(row, start), config, compute)[1]


def _at(row: Array, start: Array) -> Place:
    return Place(start[None], jnp.ones(1, bool), row)


def decode(
    weights: Weights,
    layers: Layers,
    rows: Rows,
    controls: Controls,
    alike: Int[Array, "B blocks"],
    num_tokens: Int[Array, ""],
    *,
    config: ModelConfig,
    compute: ComputeConfig,
    kernel: Kernel,
) -> tuple[Layers, Rows, Decoded]:
    """Up to `num_tokens` more tokens of every row that is alive, stop tokens among them.

    The cache's buffers are taken over; `num_tokens` is at most `DISPATCH_TOKENS`. `alike` names of
    each row's blocks of the cache the first row that has the same there (`RowTable.alike`).
    """
    batch, tops = rows.last.shape[0], min(MAX_TOPS, config.vocab_size)
    empty = Decoded(
        jnp.zeros((batch, DISPATCH_TOKENS), jnp.int32),
        jnp.zeros((batch, DISPATCH_TOKENS), jnp.float32),
        jnp.zeros((batch, DISPATCH_TOKENS, tops), jnp.int32),
        jnp.zeros((batch, DISPATCH_TOKENS, tops), jnp.float32),
    )

    def unfinished(carry: tuple[Array, Layers, Rows, Decoded]) -> Array:
        return (carry[0] < num_tokens) & jnp.any(carry[2].alive)

    def step(
        carry: tuple[Array, Layers, Rows, Decoded],
    ) -> tuple[Array, Layers, Rows, Decoded]:
        at, layers, now, out = carry
        blocks = order_blocks(alike, now.slot, now.alive) if kernel.name == "rows" else None
        place = Place(now.slot, now.alive, kernel=kernel, blocks=blocks)
        states, layers = _run(weights, layers, now.last[:, None], place, config, compute)
        logits = product(states[:, 0], weights.head, jnp.float32)
        chosen = choose(logits, controls, now.made, now.alive)
        values, tokens = jax.lax.cond(
            jnp.any((controls.tops > 0) & now.alive),
            lambda: jax.lax.top_k(chosen.logprobs, tops),
            lambda: [jnp.zeros((batch, tops)), jnp.zeros((batch, tops), jnp.int32)],
        )
        out = Decoded(
            out.tokens.at[:, at].set(chosen.token),
            out.logprobs.at[:, at].set(chosen.logprob),
            out.top_tokens.at[:, at].set(tokens),
            out.top_logprobs.at[:, at].set(values),
        )
        grown = now.alive.astype(jnp.int32)
        made = now.made + grown
        stopped = jnp.any(chosen.token[:, None] == controls.stops, axis=-1)
        alive = now.alive & ~stopped & (made < now.limit)
        last = jnp.where(now.alive, chosen.token, now.last)
        return at + 1, layers, Rows(last, now.slot + grown, made, now.limit, alive), out

    carry = (jnp.zeros((), jnp.int32), layers, rows, empty)
    _, layers, rows, out = jax.lax.while_loop(unfinished, step, carry)
    return layers, told(rows), told(out)


def score(
    weights: Weights,
    layers: Layers,
    tokens: Int[Array, "1 T"],
    row: Int[Array, ""],
    start: Int[Array, ""],
    targets: Int[Array, " T"],
    *,
    config: ModelConfig,
    compute: ComputeConfig,
    tops: int,
) -> tuple[Layers, Scored]:
    """`read`, with the log-probability of the token after each: its target.

    Logits are made for `SCORED_ROWS` positions at a time.
    """
    states, layers = _run(weights, layers, tokens, _at(row, start), config, compute)

    def block(pair: tuple[Array, Array]) -> Scored:
        logprobs = _logprobs(weights, pair[0])
        found = jnp.take_along_axis(logprobs, pair[1][:, None], axis=-1)[:, 0]
        values, likeliest = jax.lax.top_k(logprobs, tops)
        return Scored(found, found >= logprobs.max(-1), likeliest, values)

    size = min(SCORED_ROWS, tokens.shape[1])
    blocks = (states[0].reshape(-1, size, states.shape[-1]), targets.reshape(-1, size))
    scored = jax.lax.map(block, blocks)
    length = tokens.shape[1]
    return layers, told(jax.tree.map(lambda leaf: leaf.reshape(length, *leaf.shape[2:]), scored))


def weigh(
    weights: Weights,
    layers: Layers,
    tokens: Int[Array, "1 T"],
    row: Int[Array, ""],
    start: Int[Array, ""],
    at: Int[Array, ""],
    choices: Int[Array, " C"],
    *,
    config: ModelConfig,
    compute: ComputeConfig,
) -> tuple[Layers, Float[Array, " C"], Bool[Array, " C"]]:
    """`read`, with the log-probabilities of some tokens after that at index `at` of the piece.

    The last result says of each whether no token is likelier.
    """
    states, layers = _run(weights, layers, tokens, _at(row, start), config, compute)
    logprobs = told(_logprobs(weights, jax.lax.dynamic_slice_in_dim(states[0], at, 1))[0])
    return layers, logprobs[choices], logprobs[choices] >= logprobs.max()


def _logprobs(weights: Weights, states: Float[Array, "P D"]) -> Float[Array, "P V"]:
    return jax.nn.log_softmax(product(states, weights.head, jnp.float32), axis=-1)


def copy(
    layers: Layers, source: Int[Array, ""], target: Int[Array, ""], num_tokens: Int[Array, ""]
) -> Layers:
    """The cache with the first tokens of row `source` in row `target` too, whole blocks of them."""

    def block(index: Array, now: Layers) -> Layers:
        def one(cached: Array) -> Array:
            size = (1, cached.shape[1], BLOCK, cached.shape[3])
            part = jax.lax.dynamic_slice(cached, (source, 0, index * BLOCK, 0), size)
            return jax.lax.dynamic_update_slice(cached, part, (target, 0, index * BLOCK, 0))

        return jax.tree.map(one, now)

    return jax.lax.fori_loop(0, (num_tokens + BLOCK - 1) // BLOCK, block, layers)


def clear(layers: Layers, row: Int[Array, ""]) -> Layers:
    """The cache with zeros in a row: what is not finite there would spoil who comes next."""
    return jax.tree.map(lambda cached: cached.at[row].set(0), layers)
