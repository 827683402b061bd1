"""Bytes of weights and cache, from shapes alone, and how many slots fit beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from tulu_jax.errors import ConfigError
from tulu_jax.models import ModelConfig

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
USED_SHARE = 0.9
"""Of the free memory; the rest is for activations, logits and what the compiler needs."""


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


def fit(
    config: ModelConfig,
    *,
    slots: int,
    length: int,
    dtype: str,
    free_bytes: int | None,
    devices: int = 1,
) -> Sizes:
    """`slots`, or fewer where no more fit into the free memory.

    Args:
      config: the model.
      slots: most that are wanted.
      length: tokens of each.
      dtype: of weights and cache.
      free_bytes: memory of a device that is free; None where that is not known, and all fit.
      devices: that weights and cache are spread over evenly.

    Raises:
      ConfigError: not even one slot fits.
    """
    weights = config.num_params * _bytes(dtype)
    slot = slot_bytes(config, length, dtype)
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
            do="use --dtype bfloat16, a shorter --max_length, or more devices",
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
