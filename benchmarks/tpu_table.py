"""Which TPU slices hold which models, by compiling the real training step for each; needs no TPU.

    pip install 'tulu-jax[plan]'
    python benchmarks/tpu_table.py                  # compiles what is missing, then prints tables
    python benchmarks/tpu_table.py --only targets   # or: peers, smallest
    python benchmarks/tpu_table.py --print          # only prints

Results are kept in benchmarks/tpu_table.json and are not made again. Rows of 2,048 tokens, bfloat16
compute, float32 weights and AdamW, layers recomputed in the backward pass, gradients clipped.
One compilation takes a core half a minute to two minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from tulu_jax.data.config import DataConfig
from tulu_jax.models import ComputeConfig, LlamaConfig
from tulu_jax.parallel import MeshConfig
from tulu_jax.plan import CHIPS, TooLargeError, compile_step, find_topology, memory_budget, plan_run
from tulu_jax.plan.hardware import GIB
from tulu_jax.plan.planned import PlannedRun
from tulu_jax.plan.report import mesh_text
from tulu_jax.plan.topology import slice_sizes
from tulu_jax.train.config import TrainConfig

RESULTS = Path(__file__).with_suffix(".json")
LENGTH = 2048
SIZES = {
    "7B": (4096, 11008, 32, 32),
    "13B": (5120, 13824, 40, 40),
    "30B": (6656, 17920, 60, 52),
    "65B": (8192, 22016, 80, 64),
}
"""Width, feed-forward width, layers, heads. Source: arXiv 2302.13971, table 2."""

SPLIT = {"activation_length": ("sequence", "tensor")}
"""With `tensor`, what goes from block to block is split over it too, as the run files have it."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One step to compile."""

    group: str
    size: str
    topology: str
    batch: int
    tensor: int = 1
    num_slices: int = 1
    before: float | None = None
    """GiB that another implementation of the same step took, where one was measured."""

    @property
    def key(self) -> str:
        """What the result is kept under."""
        times = f"{self.num_slices}*" if self.num_slices > 1 else ""
        return f"{self.size} {times}{self.topology} tensor={self.tensor} batch={self.batch}"


TARGETS = (
    Job("targets", "7B", "v4:2x2x1", 4, before=29.11),
    Job("targets", "65B", "v4:4x4x8", 128, tensor=4, before=20.23),
    Job("targets", "65B", "v5p:4x4x4", 128, before=25.16),
    Job("targets", "65B", "v5e:16x16", 128, tensor=4, before=10.19),
)
PEERS = (
    Job("peers", "7B", "v4:2x2x4", 16, before=8.11),
    Job("peers", "7B", "v5e:4x4", 16, before=8.15),
    Job("peers", "7B", "v6e:4x4", 32, before=9.18),
    Job("peers", "7B", "v4:2x2x2", 16, num_slices=2, before=15.29),
)
"""Shapes whose peak a plain implementation was measured at: same optimizer, remat and kernel."""


def planned(job: Job, *, attention: str = "auto") -> PlannedRun:
    """The job as a run on its topology."""
    width, d_ff, layers, heads = SIZES[job.size]
    model = LlamaConfig(
        vocab_size=32000, d_model=width, d_ff=d_ff, num_layers=layers, num_heads=heads,
        num_kv_heads=heads, head_dim=128, max_length=LENGTH, norm_eps=1e-6,
    )  # fmt: skip
    config = TrainConfig(
        model_dir="unused",
        data=DataConfig(
            mixture="tulu_demo", tokenizer="unused", length=LENGTH, batch_size=job.batch
        ),
        model=model,
        compute=ComputeConfig(dtype="bfloat16", remat="full", attention=attention),
        mesh=MeshConfig(fsdp=-1, tensor=job.tensor, axis_rules=SPLIT if job.tensor > 1 else {}),
    )  # fmt: skip
    return plan_run(config, find_topology(job.topology, num_slices=job.num_slices))


def smallest(results: dict[str, Any]) -> Iterator[Job]:
    """For every size and generation, slices from the smallest that could hold it upwards.

    A slice is passed over when the estimate is 8 % or more above its memory: it came out above
    the compiled peak wherever both are known. What has not been compiled is taken at its estimate.
    """
    for size in SIZES:
        for chip in ("v4", "v5e", "v5p", "v6e"):
            for chips, sides in slice_sizes(CHIPS[chip]):
                job = _least(size, f"{chip}:{sides}", chips)
                estimate = memory_budget(planned(job)).total
                if estimate > 1.08 * CHIPS[chip].usable_bytes:
                    continue
                yield job
                known = results.get(job.key) or {"peak": estimate}
                if known.get("peak", float("inf")) < CHIPS[chip].usable_bytes:
                    break


def _least(size: str, topology: str, chips: int) -> Job:
    """One row a shard, with as little `tensor` as fits by the estimate."""
    limit = CHIPS[topology.partition(":")[0]].usable_bytes
    found: dict[Job, float] = {}
    for tensor in (1, 2, 4, 8):
        job = Job("smallest", size, topology, chips // tensor, tensor=tensor)
        try:
            budget = memory_budget(planned(job))
        except ValueError:
            continue  # This mesh does not divide the model.
        found[job] = budget.total
        if budget.total < limit:
            return job
    return min(found, key=lambda job: found[job])


def measure(job: Job) -> dict[str, Any]:
    """What the compiler says of the job, in bytes."""
    run = planned(job)
    estimate = memory_budget(run).total
    usable = run.topology.chip.usable_bytes if run.topology.chip else 0
    common = {**dataclasses.asdict(job), "estimate": estimate, "usable": usable,
              "slice": run.topology.slice_name, "mesh": dict(run.layout.mesh.shape)}  # fmt: skip
    try:
        compiled = compile_step(run)
    except TooLargeError as error:
        return {**common, "failure": str(error)}
    return {
        **common,
        "peak": compiled.peak,
        "arguments": compiled.arguments,
        "temporaries": compiled.temporaries,
        "seconds": compiled.compile_seconds,
    }


def table(results: dict[str, Any], jobs: Iterable[Job]) -> str:
    """The jobs in Markdown; "about" where a step was estimated and not compiled."""
    lines = ["| model | slice | mesh | rows | peak GiB | free | before |", "|---" * 7 + "|"]
    for job in jobs:
        run = planned(job)
        chip = run.topology.chip
        usable = chip.usable_bytes if chip else 0
        estimate = {"peak": memory_budget(run).total}
        peak = results.get(job.key, estimate).get("peak")
        about = "" if job.key in results else "about "
        cells = (
            job.size, run.topology.slice_name, mesh_text(run), job.batch,
            f"{about}{peak / GIB:.2f}" if peak else "does not fit",
            f"{1 - peak / usable:.0%}" if peak else "",
            f"{job.before:.2f}" if job.before else "",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compiles what is missing, one job at a time, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("targets", "peers", "smallest"))
    parser.add_argument("--print", action="store_true", dest="only_print")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    groups = {"targets": lambda: TARGETS, "peers": lambda: PEERS,
              "smallest": lambda: smallest(results)}  # fmt: skip
    for name, jobs in groups.items():
        if args.only_print or args.only not in (None, name):
            continue
        for job in jobs():
            if job.key not in results:
                results[job.key] = measure(job)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                got = results[job.key]
                print(job.key, got.get("peak", 0) / GIB or got["failure"], flush=True)
    for name, jobs in groups.items():
        print(f"\n{name}\n{table(results, jobs())}")


if __name__ == "__main__":
    main()
