"""What a log line says, how fast the hardware could go, and where lines are kept."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tulu_jax.files import write_whole
from tulu_jax.models import ModelConfig

PEAK_FLOPS = {
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""Dense bfloat16 FLOP/s of a device as JAX counts devices, by the start of its kind's name.
Source: the vendors' data sheets (v3: half a chip, as each core is a device)."""

FLOP_FORMULA = (
    "6 x layer weights x tokens + 6 x head weights x loss tokens + 6 x L x N x H x T x tokens"
)
"""Forward and backward; attention halved because it is causal; T the row length; nothing counted
for recomputation, padding, or prompt positions in the head."""


ADAPTER_FLOP_FORMULA = (
    "4 x layer weights x tokens + 4 x head weights x loss tokens + 6 x L x N x H x T x tokens"
    " + 6 x adapter weights x tokens"
)
"""The same with LoRA: frozen weights have no gradients of their own."""


def train_flops(
    config: ModelConfig,
    *,
    tokens: float,
    loss_tokens: float,
    length: int,
    adapter_params: int | None = None,
) -> float:
    """Floating-point operations that training on these tokens needs, by `FLOP_FORMULA`.

    With `adapter_params`, the number of weights in adapters, by `ADAPTER_FLOP_FORMULA`.
    """
    times = 6 if adapter_params is None else 4
    layers = times * (config.num_matmul_params - config.num_head_params) * tokens
    head = times * config.num_head_params * loss_tokens
    attention = 6 * config.num_layers * config.num_heads * config.head_dim * length * tokens
    return layers + head + attention + 6 * (adapter_params or 0) * tokens


@dataclasses.dataclass
class Peak:
    """FLOP/s that all devices together could do, and where the figure comes from.

    A figure that was measured while the machine was busy is too low: it is measured again, a few
    times and when nothing else runs, and the best one counts.
    """

    flops: float
    source: str
    measure: Callable[[], float] | None = None
    """Measures it anew; None where the data sheet says it."""
    measurements_left: int = 5

    def look_again(self) -> None:
        """Measures once more, if it is measured at all; call it while the devices are idle."""
        if self.measure is not None and self.measurements_left > 0:
            self.measurements_left -= 1
            self.flops = max(self.flops, self.measure())

    def share(self, flops: float) -> float | None:
        """Model FLOPs utilization, of `flops` FLOP/s; None if that is more than can be.

        Then the measured figure is too low, and no share of it says anything.
        """
        if flops > self.flops:
            self.look_again()
        return flops / self.flops if flops <= self.flops else None

    @property
    def words(self) -> str:
        """What a share is said to be of: nothing more where the data sheet says it."""
        return "" if self.measure is None else " of a measured product"


def find_peak(dtype: str) -> Peak:
    """The peak of the devices: by data sheet in bfloat16, or a matrix product, timed."""
    device = jax.devices()[0]
    known = [kind for kind in PEAK_FLOPS if device.device_kind.startswith(kind)]
    if known:
        kind = max(known, key=len)
        return Peak(PEAK_FLOPS[kind] * jax.device_count(), f"bf16 peak of {kind}")
    # Virtual CPU devices share the same cores.
    count = 1 if device.platform == "cpu" else jax.device_count()

    def measure() -> float:
        return _measured_flops(dtype) * count

    return Peak(measure(), "a measured 1024^3 product", measure)


def _measured_flops(dtype: str, size: int = 1024, tries: int = 8) -> float:
    matrix = jnp.ones((size, size), dtype)
    _product(matrix).block_until_ready()
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        _product(matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > 0.5:  # a slow machine shall not wait for its figure
            break
    return 2 * size**3 / min(seconds)


@jax.jit
def _product(matrix: Array) -> Array:
    return matrix @ matrix


class MetricLog:
    """`metrics.jsonl` of a run: one line a log step, cut back to the resumed step on restart."""

    def __init__(self, folder: Path, *, resume_step: int) -> None:
        """Opens the log, dropping lines after `resume_step`: those steps will be done again."""
        self.path = folder / "metrics.jsonl"
        self.rows = [row for row in _read(self.path) if row["step"] <= resume_step]
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: dict[str, Any]) -> None:
        """Appends one line; `row["step"]` counts finished optimizer steps."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # The line a killed process was writing; its step is done again.
    return rows
