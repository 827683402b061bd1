"""Our training step beside transformers + torch on the same model, weights and batch, in one run.

    python benchmarks/train_step.py [--rounds 9]

The work: one AdamW step in float32 of a 58,073,600-weight LLaMA (hidden 512, 8 layers, ffn 1376,
vocabulary 32,000, untied) on 4 rows of 512 tokens of which half carry loss. Each trainer lives in
its own process and steps when told to, in turn, so that never two run at once; ratios are taken
within a round and their median is reported. Ours has the allocator settings with which `tulu
train` starts itself; torch runs once as its users start it, and once with the same settings. Run
it with nothing else on the machine: one busy thread changes the order of peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tulu_jax.cli.allocator import SETTINGS, VARIABLE

ROWS, LENGTH, VOCAB = 4, 512, 32_000
LEARNING_RATE = 1e-4
TRAINERS = {"ours": True, "torch, our allocator": True, "torch.compile": False, "torch": False}
"""Each trainer, and whether it has the allocator settings of `tulu train`."""

PAUSE_S = 0.5
"""Between steps, so that the threads of the trainer before have gone to sleep."""


def make_batch() -> dict[str, np.ndarray]:
    """The rows every trainer sees: random tokens, a random half of them with loss."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    half = np.zeros((ROWS, LENGTH), np.int32)
    half[:, : LENGTH // 2] = 1
    return {
        "tokens": tokens,
        "loss_mask": rng.permuted(half, axis=1),
        "segment_ids": np.ones_like(tokens),
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
    }


def model_config() -> Any:
    """The model of gin_configs/models/llama_58m.gin."""
    from tulu_jax.models import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCAB, d_model=512, d_ff=1376, num_layers=8, num_heads=8, num_kv_heads=8,
        head_dim=64, max_length=2048, norm_eps=1e-5,
    )  # fmt: skip


def write_weights(folder: Path) -> None:
    """The weights all trainers start from, as a Hugging Face folder."""
    import jax

    from tulu_jax.checkpoint import hf
    from tulu_jax.models import init_params

    config = model_config()
    hf.save(folder, config, jax.device_get(jax.jit(init_params, static_argnums=0)(
        config, jax.random.key(0))))  # fmt: skip


def ours(folder: Path) -> Callable[[], float]:
    """A function that does one step and returns its loss."""
    import jax

    from tulu_jax.checkpoint import hf
    from tulu_jax.models import ComputeConfig
    from tulu_jax.parallel import MeshConfig, layout_for, make_mesh
    from tulu_jax.train.config import OptimizerConfig
    from tulu_jax.train.optimizer import make_optimizer
    from tulu_jax.train.state import create_state
    from tulu_jax.train.step import make_train_step

    config, params = hf.load(folder)
    layout = layout_for(config, make_mesh(MeshConfig()))
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=LEARNING_RATE, warmup_ratio=0.0, clip_norm=None), 10**9
    )
    compute = ComputeConfig(unroll_layers=config.num_layers)
    with layout.activate():
        params = jax.device_put(params, layout.params(config))
        state = create_state(config, optimizer, layout, params=params)
        step = make_train_step(config, optimizer, layout, compute=compute)
    batch = jax.device_put(make_batch(), layout.rows)

    def run() -> float:
        nonlocal state
        with layout.activate():
            state, metrics = step(state, batch)
        jax.block_until_ready(state.params)
        return float(metrics["loss"])

    return run


def with_torch(folder: Path, *, compiled: bool) -> Callable[[], float]:
    """A function that does one step of transformers' LLaMA with torch's fused AdamW."""
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="sdpa").float()
    model.config.use_cache = False
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )
    forward = torch.compile(model) if compiled else model
    batch = make_batch()
    tokens = torch.from_numpy(batch["tokens"]).long()
    labels = torch.where(torch.from_numpy(batch["loss_mask"]) > 0, tokens, -100)

    def run() -> float:
        loss = forward(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return run


def work(name: str, folder: Path) -> None:
    """Steps once for every line on standard input, answering with time and loss as JSON."""
    started = time.perf_counter()
    compiled = name == "torch.compile"
    run = ours(folder) if name == "ours" else with_torch(folder, compiled=compiled)
    loss = run()
    ready = time.perf_counter() - started
    print(json.dumps({"loss": loss, "start_s": ready}), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        loss = run()
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"loss": loss, "step_s": seconds, "rss_mib": peak}), flush=True)


class Worker:
    """A trainer in a process of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        """Starts it and waits for its first step."""
        self.name = name
        settings = {VARIABLE: SETTINGS} if TRAINERS[name] else {}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, "--weights", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **settings},
        )  # fmt: skip
        self.first = self._answer()
        self.steps: list[dict[str, float]] = []

    def step(self) -> None:
        """Does one step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.steps.append(self._answer())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without an answer")
        return json.loads(line)


def report(workers: list[Worker], warmup: int) -> Iterator[str]:
    """The table of medians, and ratios to the last worker taken round by round."""
    tokens = ROWS * LENGTH
    peer = workers[-1]
    yield f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, float32"
    yield "| trainer | s/step | tokens/s | ratio to torch | first step s | peak RSS MiB |"
    yield "|---|---|---|---|---|---|"
    for worker in workers:
        times = [step["step_s"] for step in worker.steps[warmup:]]
        others = [step["step_s"] for step in peer.steps[warmup:]]
        ratio = statistics.median(b / a for a, b in zip(times, others, strict=True))
        yield (
            f"| {worker.name} | {statistics.median(times):.3f} | "
            f"{tokens / statistics.median(times):.0f} | {ratio:.2f} | "
            f"{worker.first['start_s']:.1f} | {worker.steps[-1]['rss_mib']:.0f} |"
        )


def main() -> None:
    """Parses flags; as a controller runs the rounds, as a worker steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="steps of each trainer, in turn")
    parser.add_argument("--warmup", type=int, default=2, help="first rounds not counted")
    parser.add_argument("--worker", choices=TRAINERS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        write_weights(weights)
        workers = [Worker(name, weights) for name in TRAINERS]
        losses = [worker.first["loss"] for worker in workers]
        assert np.ptp(losses) < 1e-4 * losses[0], f"not the same work: {losses}"
        for _ in range(args.rounds):
            for worker in workers:
                time.sleep(PAUSE_S)
                worker.step()
        for line in report(workers, args.warmup):
            print(line)
        print("losses after the last step:", [round(w.steps[-1]["loss"], 4) for w in workers])
        for worker in workers:
            worker.close()


if __name__ == "__main__":
    main()
