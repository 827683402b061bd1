"""What a log line says, how fast the hardware could go, and where lines are kept."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

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


def peak_flops(dtype: str) -> tuple[float, str]:
    """FLOP/s of all devices together, and where the figure comes from.

    Known accelerators have their bfloat16 peak; on anything else a matrix product is timed.
    """
    device = jax.devices()[0]
    known = [kind for kind in PEAK_FLOPS if device.device_kind.startswith(kind)]
    if known:
        kind = max(known, key=len)
        return PEAK_FLOPS[kind] * jax.device_count(), f"bf16 peak of {kind}"
    if device.platform != "cpu":
        return _measured_flops(dtype) * jax.device_count(), "a measured 1024^3 product"
    # Virtual CPU devices share the same cores.
    return _measured_flops(dtype), "a measured 1024^3 product"


def _measured_flops(dtype: str, size: int = 1024, tries: int = 5) -> float:
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        product(matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


class MetricLog:
    """`metrics.jsonl` of a run: one line a log step, cut back to the resumed step on restart."""

    def __init__(self, folder: Path, *, resume_step: int) -> None:
        """Opens the log, dropping lines after `resume_step`: those steps will be done again."""
        self.path = folder / "metrics.jsonl"
        self.rows = [row for row in _read(self.path) if row["step"] <= resume_step]
        whole = self.path.with_suffix(".tmp")
        whole.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        os.replace(whole, self.path)

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
