"""The real training step outside of a run: how fast it is, and what it needs.

Sees JAX, Flax, Optax and NumPy only, so that it runs where nothing else is installed.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tulu_jax.axes import Batch
from tulu_jax.data.config import DataConfig
from tulu_jax.models import ModelConfig
from tulu_jax.train.config import OptimizerConfig, TrainConfig
from tulu_jax.train.flight import Flight
from tulu_jax.train.metrics import FLOP_FORMULA, find_peak
from tulu_jax.train.optimizer import make_optimizer
from tulu_jax.train.run import RunPlan, lay_out

ANY_STEPS = 10**9
"""So many that the rate is constant."""
GIB = 2**30


def synthetic_batch(
    rows: int, length: int, vocab_size: int, *, loss_share: float = 0.5, seed: int = 0
) -> dict[str, np.ndarray]:
    """Rows of one conversation each: random tokens, a random `loss_share` of them with loss."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, vocab_size, (rows, length)).astype(np.int32)
    mask = np.zeros((rows, length), np.int32)
    mask[:, : round(length * loss_share)] = 1
    return {
        "tokens": tokens,
        "loss_mask": rng.permuted(mask, axis=1),
        "segment_ids": np.ones_like(tokens),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
    }


class StepBench:
    """A compiled training step with its state on the devices."""

    def __init__(
        self, model: ModelConfig, *, rows: int, length: int, params: Any = None, **settings: Any
    ) -> None:
        """Makes the state: fresh, or of `params` on the host.

        Args:
          model: the model.
          rows: in a batch.
          length: tokens in a row.
          params: its weights on the host; None for fresh ones.
          settings: `compute`, `optimizer`, `mesh`, `micro_batches` of a `TrainConfig`.

        Raises:
          ConfigError: the mesh does not fit the devices, the model or the batch.
        """
        data = DataConfig(mixture="made up", tokenizer="none", batch_size=rows, length=length)
        settings = {"optimizer": OptimizerConfig(warmup_ratio=0.0), **settings}
        config = TrainConfig(model_dir="unused", data=data, model=model, **settings)
        layout = lay_out(config, model, rows="--rows / --micro_batches")
        optimizer = make_optimizer(config.optimizer, ANY_STEPS)
        self.run = RunPlan(config, model, layout, optimizer, ANY_STEPS)
        with layout.activate():
            if params is not None:
                params = jax.device_put(params, layout.params(model))
            self._state = self.run.start(params)
            self._step = self.run.step()
        self.compile_s = 0.0

    def put(self, batch: Batch) -> Batch:
        """The batch on the devices."""
        return jax.device_put(batch, self.run.layout.rows)

    def compile(self, batch: Batch) -> Any:
        """Compiles the step for batches of this shape; XLA's account of its memory, or None."""
        began = time.perf_counter()
        with self.run.layout.activate():
            compiled = self._step.lower(self._state, batch).compile()
        self.compile_s = time.perf_counter() - began
        self._step = compiled
        return compiled.memory_analysis()

    def step(self, batch: Batch) -> dict[str, Any]:
        """Starts a step; its metrics, on the devices."""
        with self.run.layout.activate():
            self._state, metrics = self._step(self._state, batch)
        return metrics

    def timed(self, batches: Sequence[Batch], steps: int) -> list[tuple[float, dict[str, float]]]:
        """(seconds, metrics) of each of `steps` steps, the host ahead as in a run."""
        flight = Flight()
        flight.restart()
        for step in range(steps):
            flight.add(step, self.step(batches[step % len(batches)]))
        rows = flight.fetch(steps)
        return [(row.seconds or 0.0, row.metrics) for row in rows]


def measure(
    bench: StepBench, batches: Sequence[dict[str, np.ndarray]], *, steps: int, warmup: int
) -> dict[str, Any]:
    """Speed, share of the peak, and memory of `steps` steps over the batches in turn, as JSON.

    Args:
      bench: the step.
      batches: host batches of one shape.
      steps: steps timed; their median counts.
      warmup: steps before them.
    """
    placed = [bench.put(batch) for batch in batches]
    memory = bench.compile(placed[0])
    if warmup:
        bench.timed(placed, warmup)
    timed = bench.timed(placed, steps)
    rows, length = batches[0]["tokens"].shape
    seconds = statistics.median(s for s, _ in timed)
    tokens = statistics.fmean(m["tokens"] for _, m in timed)
    loss_tokens = statistics.fmean(m["loss_tokens"] for _, m in timed)
    compute, mesh = bench.run.config.compute, bench.run.layout.mesh
    peak = find_peak(compute.dtype)
    share = peak.share(bench.run.flops(tokens, loss_tokens) / seconds)
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "mesh": {name: size for name, size in mesh.shape.items() if size > 1},
        "weights": bench.run.model.num_params,
        "rows": rows,
        "length": length,
        "dtype": compute.dtype,
        "remat": compute.remat,
        "step_s": seconds,
        "tokens_per_s": tokens / seconds,
        "loss_tokens_per_s": loss_tokens / seconds,
        "padding_share": 1 - tokens / (rows * length),
        "mfu": share,
        "mfu_formula": f"({FLOP_FORMULA}) / time / {peak.source} {peak.flops:.4g}",
        "compile_s": bench.compile_s,
        "peak_memory_gib": peak_memory_bytes() / GIB,
        "step_memory_gib": _step_bytes(memory) / GIB,
        "loss": timed[-1][1]["loss"],
    }


def peak_memory_bytes() -> float:
    """The most memory that was in use so far: of the fullest device, or of this process on CPU."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    return max(peaks) if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _step_bytes(memory: Any) -> float:
    """What XLA says one device needs for a step: arguments, results that are not they, work."""
    if memory is None:
        return 0.0
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return kept + memory.temp_size_in_bytes
