"""Prompts to continuations: one prefill, then decoding with a key/value cache, batched.

Compiled functions depend on shapes, so prompts are padded on the right to one of a few lengths and
the cache to one of a few sizes; a batch keeps its number of rows. Decoding runs many tokens in one
dispatch, in a `while_loop` that ends as soon as every row has stopped. Each row writes its cache
from slot 0 on, whatever its neighbours do: what a row yields does not depend on its batch, and its
random numbers depend only on the seed, its index and the token's number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tulu_jax.errors import DataError
from tulu_jax.generate.sample import Sampling, check_seed, next_tokens
from tulu_jax.models import (
    Cache,
    ComputeConfig,
    ModelConfig,
    head_weight,
    init_cache,
)

CHUNK_TOKENS = 32
"""Tokens of each row that one dispatch decodes in `generate`."""
STREAM_TOKENS = 8
"""Likewise in `stream`: what a reader sees arrive at once."""

Prompt = Sequence[int] | np.ndarray


class _State(NamedTuple):
    """Where a batch stands between two dispatches."""

    cache: Cache
    last: Int[Array, " B"]
    """Newest token, not yet in the cache."""
    slot: Int[Array, " B"]
    """The cache slot (and position) that `last` belongs in."""
    num_new: Int[Array, ""]
    """Tokens sampled so far."""
    done: Bool[Array, " B"]
    keys: Array


class Generator:
    """A model ready to continue prompts. Models of one config share their compiled functions.

    >>> generator = Generator(config, params)  # doctest: +SKIP
    >>> generator.generate([[1, 403, 407]], max_new_tokens=64)  # doctest: +SKIP
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        *,
        compute: ComputeConfig | None = None,
        stop_ids: Sequence[int] | None = None,
    ) -> None:
        """Takes the weights, rounded once to the compute dtype.

        Args:
          config: the model.
          params: its weights, host or device arrays; sharded ones keep their sharding. Under
            `jax.set_mesh` with logical axis rules everything else follows them.
          compute: dtype of activations, cache and weights; float32 by default.
          stop_ids: tokens that end a continuation; those of the config by default.
        """
        self.stop_ids = tuple(config.stop_ids if stop_ids is None else stop_ids)
        self.config = config
        self.compute = compute or ComputeConfig()
        self.params = jax.tree.map(lambda w: jnp.asarray(w, self.compute.dtype), params)
        self._prefill, self._decode = _jitted(config, self.compute)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        batch_size: int = 8,
        seed: int = 0,
        stop_ids: Sequence[int] | None = None,
        on_batch: Callable[[list[int], list[list[int]]], None] | None = None,
    ) -> list[list[int]]:
        """The continuation of each prompt, without the stop token, in the order of the prompts.

        A continuation shorter than `max_new_tokens` was ended by a stop token.

        Args:
          prompts: token ids of each, BOS included.
          max_new_tokens: most tokens of a continuation, >= 1.
          sampling: greedy by default.
          batch_size: prompts that run together; prompts of like length are put together.
          seed: of the random numbers; row i draws the same ones in every batch.
          stop_ids: tokens that end a row; the model's own by default.
          on_batch: called after each batch with prompt indices and their continuations.

        Raises:
          DataError: a prompt is empty, has ids outside the vocabulary, or does not fit into the
            model's length together with `max_new_tokens`.
        """
        self.check_prompts(prompts, max_new_tokens)
        check_seed(seed)
        by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        results: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(by_length), batch_size):
            indices = by_length[start : start + batch_size]
            rows = [prompts[index] for index in indices]
            chunks = self._run(
                rows, indices, max_new_tokens, sampling or Sampling(), seed, stop_ids,
                num_rows=min(batch_size, len(prompts)), chunk_tokens=CHUNK_TOKENS,
            )  # fmt: skip
            for new in chunks:
                for index, tokens in zip(indices, new, strict=True):
                    results[index] += tokens
            if on_batch is not None:
                on_batch(indices, [results[index] for index in indices])
        return results

    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop_ids: Sequence[int] | None = None,
    ) -> Iterator[list[int]]:
        """The continuation of one prompt piece by piece; joined, they are what `generate` gives.

        Raises:
          DataError: as `generate`.
        """
        self.check_prompts([prompt], max_new_tokens)
        check_seed(seed)
        chunks = self._run(
            [prompt], [0], max_new_tokens, sampling or Sampling(), seed, stop_ids,
            num_rows=1, chunk_tokens=STREAM_TOKENS,
        )  # fmt: skip
        for new in chunks:
            if new[0]:
                yield new[0]

    def check_prompts(
        self, prompts: Sequence[Prompt], max_new_tokens: int, names: Sequence[str] | None = None
    ) -> None:
        """Refuses prompts that cannot be continued by `max_new_tokens`.

        `names` is what messages call them; by default they are numbered from 0.

        Raises:
          DataError: see `generate`.
        """
        if max_new_tokens < 1:
            raise DataError("max_new_tokens is impossible", got=max_new_tokens, expected=">= 1")
        for row, prompt in enumerate(prompts):
            ids, at = np.asarray(prompt), names[row] if names else f"prompt {row}"
            if ids.size == 0:
                raise DataError("prompt is empty", at=at, expected="at least BOS")
            if ids.min() < 0 or ids.max() >= self.config.vocab_size:
                raise DataError(
                    "prompt has token ids outside the model's vocabulary",
                    got=f"ids from {ids.min()} to {ids.max()}",
                    at=at,
                    expected=f"0 to {self.config.vocab_size - 1}",
                    do="use the tokenizer the model was trained with",
                )
            if ids.size >= self.config.max_length:
                raise DataError(
                    "prompt leaves no room for an answer in the model's sequences",
                    got=f"{ids.size} tokens",
                    at=at,
                    expected=f"fewer than max_length={self.config.max_length}",
                    do="shorten it or leave it out",
                )
            if ids.size + max_new_tokens > self.config.max_length:
                raise DataError(
                    "prompt and continuation are longer than the model's sequences",
                    got=f"{ids.size} + {max_new_tokens} tokens",
                    at=at,
                    expected=f"at most max_length={self.config.max_length}",
                    do="shorten the prompt or lower --max_new_tokens",
                )

    def _run(
        self,
        prompts: Sequence[Prompt],
        indices: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling,
        seed: int,
        stop_ids: Sequence[int] | None,
        *,
        num_rows: int,
        chunk_tokens: int,
    ) -> Iterator[list[list[int]]]:
        """One batch: after each dispatch, the new tokens of every prompt."""
        stops = list(self.stop_ids if stop_ids is None else stop_ids)
        tokens, lengths = _pad(prompts, num_rows, self.config.max_length)
        cache_length = bucket(int(lengths.max()) + max_new_tokens, self.config.max_length)
        rows = jnp.asarray([*indices, *[0] * (num_rows - len(indices))], jnp.uint32)
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(rows)
        alive = jnp.arange(num_rows) < len(prompts)
        stop_array = _pad_stops(stops)
        state = self._prefill(
            self.params, tokens, lengths, alive, keys, stop_array,
            cache_length=cache_length, sampling=sampling,
        )  # fmt: skip
        new, num_new = np.asarray(state.last)[:, None], 1
        ended = [False] * len(prompts)
        while True:
            yield [_until_stop(row, stops, ended, i) for i, row in enumerate(new[: len(prompts)])]
            if num_new >= max_new_tokens or all(ended):
                return
            state, buffer = self._decode(
                self.params, state, stop_array, max_new_tokens,
                num_tokens=chunk_tokens, sampling=sampling,
            )  # fmt: skip
            made = int(state.num_new) - num_new
            new, num_new = np.asarray(buffer)[:, :made], num_new + made


@lru_cache
def _jitted(config: ModelConfig, compute: ComputeConfig) -> tuple[Any, Any]:
    """`_prefill` and `_decode` of a model, jitted once a process."""
    prefill = jax.jit(
        partial(_prefill, config=config, compute=compute),
        static_argnames=("cache_length", "sampling"),
    )
    decode = jax.jit(
        partial(_decode, config=config, compute=compute),
        static_argnames=("num_tokens", "sampling"),
        donate_argnames=("state",),
    )
    return prefill, decode


def bucket(length: int, limit: int) -> int:
    """`length` rounded up to one of few values, so that few shapes are compiled.

    Powers of two from 16 to 256, then multiples of 256, and never above `limit`.

    >>> [bucket(n, 2048) for n in (1, 17, 300, 2000)]
    [16, 32, 512, 2048]
    """
    power = max(16, 1 << (length - 1).bit_length())
    return min(power if power <= 256 else -(-length // 256) * 256, limit)


def _pad(
    prompts: Sequence[Prompt], num_rows: int, limit: int
) -> tuple[Int[np.ndarray, "B T"], Int[np.ndarray, " B"]]:
    """Prompts padded on the right with 0, and their lengths; rows to spare are one token long."""
    lengths = np.ones(num_rows, np.int32)
    lengths[: len(prompts)] = [len(prompt) for prompt in prompts]
    tokens = np.zeros((num_rows, bucket(int(lengths.max()), limit)), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return tokens, lengths


def _pad_stops(stops: Sequence[int]) -> Int[np.ndarray, " stops"]:
    """Stop tokens filled up with -1, which is no token, to a multiple of 8: one shape for most."""
    return np.array([*stops, *[-1] * (-len(stops) % 8 or 8 * (not stops))], np.int32)


def _until_stop(row: np.ndarray, stops: list[int], ended: list[bool], index: int) -> list[int]:
    """The row's tokens before its stop token; notes in `ended` that it has come."""
    if ended[index]:
        return []
    found = np.flatnonzero(np.isin(row, stops))
    ended[index] = bool(found.size)
    return row[: found[0] if found.size else len(row)].tolist()


def _prefill(
    params: Any,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    alive: Bool[Array, " B"],
    keys: Array,
    stops: Int[Array, " stops"],
    *,
    config: ModelConfig,
    compute: ComputeConfig,
    cache_length: int,
    sampling: Sampling,
) -> _State:
    """Reads the prompts into a fresh cache and samples the first token of each."""
    batch, length = tokens.shape
    slots = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    segments = (slots < lengths[:, None]).astype(jnp.int32)
    cache = init_cache(config, batch, cache_length, compute.dtype)
    states, cache = _apply(config, compute, params, tokens, segments, slots, cache)
    final = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)[:, 0]
    first = next_tokens(_logits(config, params, final), _fold(keys, 0), sampling)
    done = ~alive | jnp.isin(first, stops)
    return _State(cache, first, lengths, jnp.ones((), jnp.int32), done, keys)


def _decode(
    params: Any,
    state: _State,
    stops: Int[Array, " stops"],
    limit: Int[Array, ""],
    *,
    config: ModelConfig,
    compute: ComputeConfig,
    num_tokens: int,
    sampling: Sampling,
) -> tuple[_State, Int[Array, "B chunk"]]:
    """Up to `num_tokens` more tokens of every row, and never more than `limit` in all."""
    begin = state.num_new

    def unfinished(carry: tuple[_State, Array]) -> Array:
        now = carry[0]
        return (now.num_new < jnp.minimum(begin + num_tokens, limit)) & ~jnp.all(now.done)

    def step(carry: tuple[_State, Array]) -> tuple[_State, Array]:
        now, buffer = carry
        segments = (~now.done).astype(jnp.int32)[:, None]
        states, cache = _apply(
            config, compute, params, now.last[:, None], segments, now.slot[:, None], now.cache
        )
        logits = _logits(config, params, states[:, 0])
        token = next_tokens(logits, _fold(now.keys, now.num_new), sampling)
        token = jnp.where(now.done, 0, token)
        buffer = buffer.at[:, now.num_new - begin].set(token)
        done = now.done | jnp.isin(token, stops)
        return _State(cache, token, now.slot + 1, now.num_new + 1, done, now.keys), buffer

    buffer = jnp.zeros((state.last.shape[0], num_tokens), jnp.int32)
    return jax.lax.while_loop(unfinished, step, (state, buffer))


def _apply(
    config: ModelConfig,
    compute: ComputeConfig,
    params: Any,
    tokens: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    slots: Int[Array, "B T"],
    cache: Cache,
) -> tuple[Float[Array, "B T D"], Cache]:
    model: Any = config.decoder(compute)
    return model.apply({"params": params}, tokens, segments, slots, cache)


def _logits(config: ModelConfig, params: Any, states: Float[Array, "B D"]) -> Float[Array, "B V"]:
    head = head_weight(config, params).astype(states.dtype)
    return jnp.einsum("BD,DV->BV", states, head, preferred_element_type=jnp.float32)


def _fold(keys: Array, number: int | Array) -> Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
