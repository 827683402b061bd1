"""Trainers that do the same work in processes of their own, one step at a time when told to.

Used by benchmarks/vs_torch.py. A `Work` says what a step is; it and the batches lie in a folder, so
that every trainer starts from the same weights and sees the same tokens.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OURS = "ours"
TRAINERS = {
    OURS: {"allocator": True},
    "torch": {"attention": "sdpa"},
    "torch, our allocator": {"attention": "sdpa", "allocator": True},
    "torch, eager attention": {"attention": "eager"},
    "torch.compile": {"attention": "sdpa", "compile": True},
    "torch, flash": {"attention": "flash_attention_2"},
    "torch.compile, flash": {"attention": "flash_attention_2", "compile": True},
}
"""Each trainer and what sets it apart: `allocator` has the settings of `tulu train` on CPU."""

IGNORED = -100
"""The label that carries no loss in transformers."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What every trainer does in a step."""

    model: str = "llama_58m"
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"
    """Of ours."""
    unroll: bool = True
    learning_rate: float = 1e-4
    clip_norm: float | None = None
    device: str = "cpu"
    """Where torch works; JAX takes what it finds."""


def write_weights(folder: Path, work: Work) -> None:
    """The weights all trainers start from, as a Hugging Face folder."""
    import jax

    from tulu_jax.checkpoint import hf
    from tulu_jax.cli.gin_config import load_model
    from tulu_jax.models import init_params

    config = load_model(work.model)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
        hf.save(folder, config, jax.device_get(params))


def ours(
    folder: Path, work: Work, shape: tuple[int, ...]
) -> Callable[[dict[str, np.ndarray]], float]:
    """A function that does one step on rows of a shape and returns its loss."""
    from bare import stand_in_for_jaxtyping

    stand_in_for_jaxtyping()
    from tulu_jax.checkpoint import hf
    from tulu_jax.models import ComputeConfig
    from tulu_jax.train.bench import StepBench
    from tulu_jax.train.config import OptimizerConfig

    config, params = hf.load(folder)
    compute = ComputeConfig(
        dtype=work.dtype,
        remat=work.remat,
        attention=work.attention,
        unroll_layers=config.num_layers if work.unroll else 1,
    )
    optimizer = OptimizerConfig(
        learning_rate=work.learning_rate, warmup_ratio=0.0, clip_norm=work.clip_norm
    )
    rows, length = shape
    bench = StepBench(
        config, rows=rows, length=length, compute=compute, optimizer=optimizer, params=params
    )

    def run(batch: dict[str, np.ndarray]) -> float:
        return float(bench.step(bench.put(batch))["loss"])

    return run


def with_torch(
    folder: Path, work: Work, *, attention: str, compiled: bool
) -> Callable[[dict[str, np.ndarray]], float]:
    """A function that does one step of transformers' model with torch's fused AdamW.

    bfloat16 is autocast over float32 weights, as with Trainer's `--bf16`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_float32_matmul_precision("high" if work.dtype == "bfloat16" else "highest")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    model = model.float().to(work.device)
    model.config.use_cache = False
    if work.remat != "none":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=work.learning_rate, weight_decay=0.0, fused=True
    )
    forward = torch.compile(model) if compiled else model
    half = work.dtype == "bfloat16"

    def run(batch: dict[str, np.ndarray]) -> float:
        inputs = {name: torch.from_numpy(x).to(work.device) for name, x in hf_batch(batch).items()}
        with torch.autocast(work.device, dtype=torch.bfloat16, enabled=half):
            loss = forward(**inputs).loss
        loss.backward()
        if work.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), work.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return run


def hf_batch(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of one conversation each as transformers wants them.

    The attention mask is left out where nothing is padded, as a collator without padding does.
    """
    real = batch["segment_ids"] > 0
    tokens = batch["tokens"].astype(np.int64)
    found = {
        "input_ids": tokens,
        "labels": np.where((batch["loss_mask"] > 0) & real, tokens, IGNORED),
    }
    return found if real.all() else {**found, "attention_mask": real.astype(np.int64)}


def work_when_told(name: str, folder: Path) -> None:
    """Steps once for every line on standard input, answering with time and loss as JSON."""
    began = time.perf_counter()
    work = Work(**json.loads((folder / "work.json").read_text()))
    batches = read_batches(folder, OURS if name == OURS else "torch")
    options = TRAINERS[name]
    if name == OURS:
        run = ours(folder / "weights", work, batches[0]["tokens"].shape)
    else:
        compiled = bool(options.get("compile"))
        run = with_torch(
            folder / "weights", work, attention=str(options["attention"]), compiled=compiled
        )
    loss = run(batches[0])
    print(json.dumps({"loss": loss, "start_s": time.perf_counter() - began}), flush=True)
    for line in sys.stdin:
        batch = batches[int(line) % len(batches)]
        begin = time.perf_counter()
        loss = run(batch)
        seconds = time.perf_counter() - begin
        print(json.dumps({"loss": loss, "step_s": seconds, **_counts(batch),
                          "memory_mib": _memory_mib(name)}), flush=True)  # fmt: skip


def _counts(batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Real tokens, tokens that are trained, and all positions of a batch."""
    segments, mask = batch["segment_ids"], batch["loss_mask"] > 0
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    return {
        "tokens": int((segments > 0).sum()),
        "loss_tokens": int((mask[:, 1:] & same).sum()),
        "positions": segments.size,
    }


def _memory_mib(name: str) -> float:
    """Peak of the accelerator where there is one, else of the process."""
    if name != OURS:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from tulu_jax.train.bench import peak_memory_bytes

    return peak_memory_bytes() / 2**20


def write_batches(folder: Path, who: str, batches: list[dict[str, np.ndarray]]) -> None:
    """Keeps the batches that trainers of this kind step over."""
    named = {f"{i}/{name}": x for i, batch in enumerate(batches) for name, x in batch.items()}
    np.savez(folder / f"{who}.npz", **named)  # type: ignore[arg-type]


def read_batches(folder: Path, who: str) -> list[dict[str, np.ndarray]]:
    """What `write_batches` kept."""
    with np.load(folder / f"{who}.npz") as file:
        found: dict[int, dict[str, np.ndarray]] = {}
        for key in file.files:
            number, name = key.split("/")
            found.setdefault(int(number), {})[name] = file[key]
    return [found[number] for number in sorted(found)]


class Worker:
    """A trainer in a process of its own."""

    def __init__(self, name: str, folder: Path, platforms: str) -> None:
        """Starts it, JAX on these platforms, and waits for its first step, which compiles."""
        from tulu_jax.cli.allocator import SETTINGS, VARIABLE

        self.name = name
        cpu = json.loads((folder / "work.json").read_text())["device"] == "cpu"
        settings = {VARIABLE: SETTINGS} if TRAINERS[name].get("allocator") and cpu else {}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("vs_torch.py")), "--worker", name,
             "--folder", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45", "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                 **os.environ, "JAX_PLATFORMS": platforms, **settings},
        )  # fmt: skip
        self.first = self._answer()
        self.steps: list[dict[str, Any]] = []

    def step(self, number: int) -> None:
        """Does the step of that batch."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        self.steps.append(self._answer())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended without an answer")
        return json.loads(line)
