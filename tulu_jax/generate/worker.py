"""The device side of the engine: weights, cache, and the host's copy of where every row stands."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from tulu_jax.errors import ConfigError
from tulu_jax.generate.jobs import Made
from tulu_jax.generate.requests import MAX_BIASES, MAX_STOP_IDS
from tulu_jax.generate.row_table import Found
from tulu_jax.generate.sample import Controls
from tulu_jax.generate.sizes import cache_length, check_length, piece_tokens, slot_bytes
from tulu_jax.generate.stats import Stats
from tulu_jax.generate.steps import Rows, compiled_steps, heads_of, init_layers
from tulu_jax.generate.weights import Weights, read_bytes, split_weights
from tulu_jax.models import ComputeConfig, ModelConfig
from tulu_jax.ops.attention.cached import BLOCK
from tulu_jax.ops.attention.choice import platform_of
from tulu_jax.ops.attention.decoding import choose_decode_kernel, probed

if TYPE_CHECKING:
    from tulu_jax.generate.jobs import Job

SMALLEST = 4
"""The end of a prompt is read in a piece of a quarter, a half or the whole of the others' size."""


class MadeBatch(NamedTuple):
    """What a dispatch added to all rows."""

    counts: np.ndarray
    decoded: Any
    """`Decoded`, on the host."""

    def of(self, row: int) -> Made:
        """What it added to one row: copies, or a row's few numbers would keep those of all."""
        return Made(*(array[row, : self.counts[row]].copy() for array in self.decoded))


def idle_rows(slots: int, unused: int, vocab_size: int) -> tuple[Rows, Controls]:
    """Rows without a job, as the host keeps them; they write into the slot `unused`."""
    zeros: Any = np.zeros(slots, np.int32)
    full: Any = np.full
    arrays = (
        Rows(zeros, zeros + unused, zeros, zeros, zeros > 0),
        Controls(
            temperature=zeros.astype(np.float32),
            top_p=full(slots, 1.0, np.float32),
            top_k=zeros,
            seed=zeros.astype(np.uint32),
            stream=zeros,
            stops=full((slots, MAX_STOP_IDS), -1, np.int32),
            bias_ids=full((slots, MAX_BIASES), vocab_size, np.int32),
            biases=full((slots, MAX_BIASES), 0.0, np.float32),
            tops=zeros,
        ),
    )
    return jax.tree.map(np.copy, arrays)


class Worker:
    """Runs the compiled functions on rows of a cache."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        slots: int,
        max_length: int,
        compute: ComputeConfig,
        stats: Stats,
        *,
        int8: bool = False,
    ) -> None:
        """Takes the weights and makes the cache.

        Raises:
          ConfigError: `slots` or `max_length` is impossible for the model.
        """
        if slots < 1:
            raise ConfigError("number of slots is impossible", got=slots, expected=">= 1")
        check_length(config, max_length)
        self.config, self.slots, self.max_length = config, slots, max_length
        self.piece = piece_tokens(platform_of())
        length = cache_length(max_length, platform_of())
        self.blocks = length // BLOCK
        self._unused = length - 1
        self._dtype = compute.dtype
        self._split = partial(split_weights, config, dtype=compute.dtype, int8=int8)
        self._new_cache = partial(init_layers, config, slots, length, compute.dtype)
        self.load(params)
        heads = heads_of(config)
        self.kernel = probed(choose_decode_kernel(heads, compute.dtype), heads, compute.dtype)
        self._steps = compiled_steps(config, compute, self.kernel.name, platform_of())
        self._stats = stats
        if platform_of() == "tpu":
            stats.kernel = f"{self.kernel.name}, {self.kernel.reason}"
        self._seen: set[tuple[Any, ...]] = set()
        self._rows, self._controls = idle_rows(slots, self._unused, config.vocab_size)

    def load(self, params: Any) -> None:
        """Takes weights, and makes the cache; with None it lets go of both."""
        self._weights, self._layers = None, []  # first: there may be no room for two of each
        if params is not None:
            weights = params if isinstance(params, Weights) else self._split(params=params)
            self._layers = self._new_cache()
            self._step_bytes = read_bytes(self.config, weights)
            self._weights = weights  # last: where there is no room, nothing is kept

    @property
    def weights(self) -> Weights | None:
        """The weights, in the engine's own form."""
        return self._weights

    def read(self, row: int, tokens: np.ndarray, start: int) -> int:
        """Reads the piece of a row's tokens that begins at `start`; returns how many it has."""
        piece = self._cut(tokens, start)
        count = min(self.piece, tokens.size - start)
        self._call("read", piece.shape, piece, row, start)
        self._stats.read_tokens += count
        return count

    def take_over(self, found: Found, tokens: np.ndarray) -> None:
        """Copies what a row shares with another."""
        if found.num_tokens and found.source != found.row:
            self._call("copy", (), found.source, found.row, found.num_tokens, model=False)
        self._stats.count_prompt(tokens.size, found.num_tokens)

    def score(
        self,
        row: int,
        tokens: np.ndarray,
        targets: np.ndarray,
        start: int,
        *,
        offset: int = 0,
        tops: int = 0,
    ) -> Any:
        """Reads a piece; `Scored` of it, on the host: the tokens after each of its own.

        `offset` is the slot of the first of all `tokens`.
        """
        piece, after = self._cut(tokens, start), self._cut(targets, start)
        count = min(self.piece, tokens.size - start)
        key = (piece.shape, tops)
        found = self._call("score", key, piece, row, offset + start, after[0], tops=tops)
        self._stats.read_tokens += count
        return jax.tree.map(lambda array: np.asarray(array)[:count], found)

    def weigh(
        self, row: int, tokens: np.ndarray, start: int, choices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads the last piece; log-probabilities of tokens after it, and which are likeliest."""
        piece = self._cut(tokens, start)
        assert tokens.size - start <= self.piece
        padded = np.zeros(max(8, 1 << (choices.size - 1).bit_length()), np.int32)
        padded[: choices.size] = choices
        at = tokens.size - start - 1
        key = (piece.shape, padded.shape)
        found = self._call("weigh", key, piece, row, start, at, padded)
        self._stats.read_tokens += tokens.size - start
        return np.asarray(found[0])[: choices.size], np.asarray(found[1])[: choices.size]

    def clear(self, row: int) -> None:
        """Sets a row to zeros."""
        self._call("clear", (), row, model=False)

    def restore(self) -> bool:
        """Makes the cache anew if an interrupted call has used it up; returns whether it had."""
        if not any(array.is_deleted() for array in jax.tree.leaves(self._layers)):
            return False
        self._layers = self._new_cache()
        return True

    def start(self, job: Job) -> None:
        """Has a row decode from its job's last prompt token on."""
        row, sampling = job.row, job.request.sampling
        rows, controls = self._rows, self._controls
        rows.last[row], rows.slot[row] = job.prompt[-1], job.prompt.size - 1
        rows.made[row], rows.limit[row], rows.alive[row] = 0, job.limit, True
        controls.temperature[row] = sampling.temperature
        controls.top_p[row], controls.top_k[row] = sampling.top_p, sampling.top_k
        controls.seed[row], controls.stream[row] = job.request.seed, job.request.stream
        controls.tops[row] = job.request.tops
        controls.stops[row] = -1
        controls.stops[row, : len(job.stop_ids)] = job.stop_ids
        biases = job.request.logit_bias
        controls.bias_ids[row] = self.config.vocab_size
        controls.bias_ids[row, : len(biases)] = list(biases)
        controls.biases[row, : len(biases)] = list(biases.values())

    def stop(self, row: int) -> None:
        """Leaves a row alone."""
        self._rows.alive[row] = False
        self._rows.slot[row] = self._unused

    def decode(self, num_tokens: int, alike: np.ndarray) -> MadeBatch:
        """Up to `num_tokens` more tokens of every row that has a job; `alike` as in `decode`."""
        before, first = self._rows, ("decode", ()) not in self._seen
        with self._stats.timed("read_seconds"):
            jax.block_until_ready(self._layers)
        rows, decoded = self._call(
            "decode", (), self._rows, self._controls, alike, num_tokens, timed="decode"
        )
        # Copies, as the host goes on to write into them.
        self._rows = jax.tree.map(np.array, rows)
        counts = self._rows.made - before.made
        self._stats.dispatches += 1
        if not first:
            self._stats.read_bytes += self._bytes_read(before.slot, counts)
        self._stats.decoded_tokens += int(counts.sum())
        self._stats.slot_steps += int(counts.max()) * self.slots
        return MadeBatch(counts, jax.tree.map(np.asarray, decoded))

    def _bytes_read(self, slots: Any, counts: np.ndarray) -> int:
        """What steps that add `counts` tokens to rows, from `slots` on, read at least."""
        held = counts.astype(np.int64) * (slots + 1) + counts * (counts - 1) // 2
        token = slot_bytes(self.config, 1, self._dtype)
        return int(counts.max()) * self._step_bytes + int(held.sum()) * token

    def _cut(self, tokens: np.ndarray, start: int) -> np.ndarray:
        """[1, T]: a piece, filled up with zeros to one of three sizes."""
        part = tokens[start : start + self.piece]
        size = self.piece
        while size > self.piece // SMALLEST and part.size <= size // 2:
            size //= 2
        piece = np.zeros((1, size), np.int32)
        piece[0, : part.size] = part
        return piece

    def _call(
        self,
        name: str,
        shapes: Any,
        *args: Any,
        model: bool = True,
        timed: str = "read",
        **static: Any,
    ) -> Any:
        """Runs a compiled function on the cache, which it replaces; returns what else it gives."""
        first = (name, shapes) not in self._seen
        self._seen.add((name, shapes))
        arguments = [np.int32(value) if isinstance(value, int) else value for value in args]
        weights = (self._weights,) if model else ()
        with self._stats.timed("compile_seconds" if first else f"{timed}_seconds"):
            found = getattr(self._steps, name)(*weights, self._layers, *arguments, **static)
            only_layers = isinstance(found, list)
            self._layers = found if only_layers else found[0]
            rest = None if only_layers else found[1] if len(found) == 2 else found[1:]
            if first or not only_layers:
                jax.block_until_ready(rest if rest is not None else self._layers)
        return rest
