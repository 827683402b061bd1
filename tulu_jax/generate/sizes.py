"""Bytes of weights and cache, from shapes alone, and how many slots fit beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from tulu_jax.errors import ConfigError
from tulu_jax.models import ModelConfig
from tulu_jax.ops.attention.cached import BLOCK
from tulu_jax.ops.attention.choice import platform_of

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
USED_SHARE = 0.9
"""Of the free memory; the rest is for activations, logits and what the compiler needs."""

CPU_PIECE, PIECE = 64, 256
"""Tokens of a prompt that are read at once: on CPU 64 keep both cores busy, and prefixes are shared
in steps of a piece; accelerators want more rows in a product."""
CPU_STEP, STEP = BLOCK, 4 * BLOCK
"""A row of the cache has a multiple of so many slots: elsewhere than on CPU kernels fetch as much
at a time."""


def piece_tokens(platform: str) -> int:
    """Tokens of a prompt that are read at once."""
    return CPU_PIECE if platform == "cpu" else PIECE


def cache_length(max_length: int, platform: str) -> int:
    """Slots of a row of the cache for texts of up to `max_length` tokens.

    Beyond these: a piece that a continuation's last tokens do not fill, and a slot that rows
    without a request write into.

    >>> cache_length(2048, "cpu"), cache_length(2048, "tpu")
    (2176, 2560)
    """
    step = CPU_STEP if platform == "cpu" else STEP
    return -(-(max_length + 1 + piece_tokens(platform)) // step) * step


class Sizes(NamedTuple):
    """What an engine holds on its devices."""

    weights: int
    slot: int
    """Bytes of the cache of one slot."""
    slots: int
    length: int
    """Tokens of a slot."""

    def line(self) -> str:
        """For a reader."""
        cache = self.slots * self.slot
        return (
            f"{self.slots} slots of {self.length:,} tokens: cache {cache / GIB:.2f} GiB beside "
            f"weights of {self.weights / GIB:.2f} GiB"
        )


def slot_bytes(config: ModelConfig, length: int, dtype: str) -> int:
    """Bytes of the keys and values of `length` tokens.

    A LLaMA 7B in bfloat16: 2 x 32 layers x 32 heads x 128 channels x 2 bytes = 0.5 MiB a token.
    """
    numbers = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return numbers * length * _bytes(dtype)


def _bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def weight_bytes(config: ModelConfig, dtype: str, *, int8: bool = False) -> int:
    """Bytes of the weights; with `int8` those of the layers' matrices take one each."""
    rounded = config.num_layers * config.num_layer_matmul_params if int8 else 0
    return (config.num_params - rounded) * _bytes(dtype) + rounded


def fit(
    config: ModelConfig,
    *,
    slots: int,
    length: int,
    dtype: str,
    free_bytes: int | None,
    devices: int = 1,
    int8: bool = False,
) -> Sizes:
    """`slots`, or fewer where no more fit into the free memory.

    Args:
      config: the model.
      slots: most that are wanted.
      length: tokens of each.
      dtype: of weights and cache.
      free_bytes: memory of a device that is free; None where that is not known, and all fit.
      devices: that weights and cache are spread over evenly.
      int8: whether the layers' matrices are kept in 8 bits.

    Raises:
      ConfigError: not even one slot fits.
    """
    weights = weight_bytes(config, dtype, int8=int8)
    slot = slot_bytes(config, cache_length(length, platform_of()), dtype)
    if free_bytes is None:
        return Sizes(weights, slot, slots, length)
    usable = int(free_bytes * USED_SHARE) * devices
    fitting = (usable - weights) // slot
    if fitting < 1:
        raise ConfigError(
            "model and one sequence do not fit into the memory",
            got=f"weights of {weights / GIB:.2f} GiB and {slot / GIB:.2f} GiB for "
            f"{length:,} tokens",
            expected=f"at most {usable / GIB:.2f} GiB, {USED_SHARE:.0%} of what is free",
            do="use --dtype bfloat16, --quantize int8, a shorter --max_length, or more devices",
        )
    return Sizes(weights, slot, min(slots, int(fitting)), length)


def free_memory() -> int | None:
    """Bytes that are free on the first device; of the host, caches of files included, on CPU."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform == "cpu" and MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return None


def check_length(config: ModelConfig, max_length: int) -> None:
    """Passes for a length of sequences that the model can have.

    Raises:
      ConfigError: it is not positive, or longer than the learned positions.
    """
    if max_length < 1:
        raise ConfigError("max_length is impossible", got=max_length, expected=">= 1")
    if max_length > config.max_length and config.learned_positions:
        raise ConfigError(
            "max_length is longer than the model has positions",
            got=max_length,
            expected=f"at most {config.max_length}: they are learned, one by one",
            do="lower max_length",
        )
