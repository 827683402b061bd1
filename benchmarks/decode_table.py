"""Which TPUs generate with which models, by compiling the engine's own programs; needs no TPU.

    pip install 'tulu-jax[plan]'
    python benchmarks/decode_table.py            # compiles what is missing, then prints the table
    python benchmarks/decode_table.py --chip v4  # of one generation only
    python benchmarks/decode_table.py --print    # only prints

Results are kept in benchmarks/decode_table.json and are not made again. LLaMA with 2,048 tokens a
slot, everything bfloat16, as many slots as fit; one replica of as many chips as `tensor`. Weights
that leave no room for a slot by their shapes are passed over. One job takes a core one to several
minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tulu_jax.cli.gin_config import load_model
from tulu_jax.plan import TooLargeError, find_topology
from tulu_jax.plan.decode_report import bounds_of, generation_json
from tulu_jax.plan.decoding import PlannedEngine, compile_engine, most_slots, plan_engine
from tulu_jax.plan.hardware import CHIPS, GIB

RESULTS = Path(__file__).with_suffix(".json")
SIZES = ("7B", "13B", "30B", "65B")
TENSOR = (1, 2, 4, 8)
CHIP_NAMES = ("v4", "v5e", "v5p", "v6e")
SLICES = {2: {4: "2x2", 8: "2x4"}, 3: {4: "2x2x1", 8: "2x2x2"}}
"""By the sides of a generation's network: the slice of so many chips."""


class Job(NamedTuple):
    """One replica to compile."""

    size: str
    chip: str
    tensor: int

    @property
    def key(self) -> str:
        """What the result is kept under."""
        return f"{self.size} {self.chip} tensor={self.tensor}"


def jobs(chips: tuple[str, ...]) -> Iterator[tuple[Job, PlannedEngine]]:
    """Every size on every number of chips that hold its weights and a slot."""
    for chip, size, tensor in itertools.product(chips, SIZES, TENSOR):
        found = CHIPS[chip]
        sides = SLICES[found.dimensions][max(4, tensor)]
        model = load_model(f"llama_{size.lower()}")
        if model.num_heads % tensor:
            continue  # 30B has 52 heads, which 8 does not divide
        engine = plan_engine(model, find_topology(f"{chip}:{sides}"), tensor=tensor)
        if engine.weight_bytes + engine.slot_bytes < found.usable_bytes:
            yield Job(size, chip, tensor), engine


def measure(engine: PlannedEngine) -> dict[str, Any]:
    """What the compiler says, and the bounds."""
    try:
        return generation_json(compile_engine(engine))
    except TooLargeError as error:
        return {"failure": str(error)}


def table(results: dict[str, Any]) -> str:
    """Markdown; "about" where slots are counted from shapes and nothing was compiled."""
    names = ("model", "chips", "kernel", "slots", "weights GiB", "peak GiB", "free",
             "HBM tok/s", "compute tok/s", "read tok/s")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for job, engine in jobs(CHIP_NAMES):
        got = results.get(job.key, {})
        chip = CHIPS[job.chip]
        slots = got.get("slots") or most_slots(engine)
        speed = bounds_of(engine, slots)
        assert speed is not None  # of TPUs all is known
        peak = got.get("peak_bytes")
        about = "" if got else "about "
        cells = (
            job.size, f"{job.tensor} x {job.chip}", engine.kernel.name,
            "does not fit" if "failure" in got else f"{about}{slots}",
            f"{engine.weight_bytes / GIB:.2f}",
            f"{peak / GIB:.2f}" if peak else "",
            f"{1 - peak / chip.usable_bytes:.0%}" if peak else "",
            f"{speed.memory:,.0f}", f"{speed.compute:,.0f}", f"{speed.prefill:,.0f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Compiles what is missing, one job at a time, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chip", choices=CHIP_NAMES)
    parser.add_argument("--print", action="store_true", dest="only_print")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    chips = (args.chip,) if args.chip else CHIP_NAMES
    for job, engine in () if args.only_print else jobs(chips):
        if job.key not in results:
            results[job.key] = got = measure(engine)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(job.key, got.get("slots") or got["failure"], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
