"""A plan as tables to read and as JSON values to keep."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tulu_jax.plan.compiled import Compiled
from tulu_jax.plan.duration import Duration, Schedule
from tulu_jax.plan.hardware import GIB
from tulu_jax.plan.hlo import Traffic
from tulu_jax.plan.planned import PlannedRun
from tulu_jax.plan.roofline import ASSUMPTIONS, Roofline
from tulu_jax.plan.search import Candidate
from tulu_jax.train.budget import Budget

BUDGET_LABELS = {
    "weights": "weights, float32",
    "frozen": "frozen weights beside them",
    "optimizer": "optimizer state",
    "gradients": "gradients",
    "copies": "weights in the compute dtype",
    "kept": "activations kept for the backward pass",
    "working": "one layer's work",
    "loss": "head, its gradient, a chunk of logits",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is known of a run on a topology."""

    run: PlannedRun
    budget: Budget
    compiled: Compiled | None = None
    roof: Roofline | None = None
    schedule: Schedule | None = None
    duration: Duration | None = None
    largest_batch: tuple[int, float] | None = None

    @property
    def usable_bytes(self) -> float | None:
        """Memory of a device; None where nothing is known of it."""
        return self.run.topology.chip.usable_bytes if self.run.topology.chip else None

    def as_json(self) -> dict[str, Any]:
        """The plan as dictionaries, lists, texts and numbers; sizes in bytes, times in seconds."""
        run, config = self.run, self.run.config
        peak, usable = self.compiled.peak if self.compiled else None, self.usable_bytes
        return {
            "topology": run.topology.name,
            "slice": run.topology.slice_name,
            "devices": len(run.topology.devices),
            "mesh": dict(run.layout.mesh.shape),
            "weights": run.model.num_params,
            "batch_size": config.data.batch_size,
            "micro_batches": config.micro_batches,
            "length": config.data.length,
            "compute": dataclasses.asdict(config.compute),
            "usable_bytes": usable,
            "free_share": None if not (peak and usable) else 1 - peak / usable,
            "budget": {**dataclasses.asdict(self.budget), "total": self.budget.total},
            "compiled": self.compiled and dataclasses.asdict(self.compiled),
            "roofline": self.roof
            and {
                **dataclasses.asdict(self.roof),
                "seconds": self.roof.seconds,
                "bound": self.roof.bound,
                "mfu": self.roof.mfu,
            },
            "schedule": self.schedule and dataclasses.asdict(self.schedule),
            "duration": self.duration and dataclasses.asdict(self.duration),
            "largest_batch": self.largest_batch and self.largest_batch[0],
            "assumptions": list(ASSUMPTIONS),
        }


def print_plan(plan: Plan, console: Console) -> None:
    """Prints the plan: what it is of, memory, traffic, speed, time."""
    run, config = plan.run, plan.run.config
    devices, micro = len(run.topology.devices), config.micro_batches
    console.print(
        f"{run.model.num_params:,} weights on {run.topology.slice_name}: "
        + (f"{devices} devices ({mesh_text(run)}), " if devices > 1 else "one device, ")
        + f"{config.data.batch_size} rows of {config.data.length}"
        + (f" in {micro} micro-batches, " if micro > 1 else ", ")
        + f"remat {config.compute.remat}, {config.compute.dtype} compute",
        soft_wrap=True,
    )
    for note in run.layout.notes:
        console.print(f"  not split: {note}", soft_wrap=True)
    console.print(budget_table(plan.budget, plan.usable_bytes))
    if plan.compiled:
        console.print(compiled_table(plan.compiled, plan.usable_bytes))
        if plan.compiled.traffic.collectives:
            console.print(traffic_table(plan.compiled.traffic))
    if plan.roof:
        console.print(roofline_table(plan.roof))
    else:
        console.print("No bound on speed: nothing is known of these devices", soft_wrap=True)
    if plan.largest_batch:
        rows, peak = plan.largest_batch
        console.print(f"Largest batch that fits: {rows} rows, peak {gib(peak)} GiB a device")
    if plan.schedule and plan.duration:
        _print_duration(plan.schedule, plan.duration, console)
    if plan.roof:
        if not plan.schedule:
            console.print(
                "No time to train: the mixture is not prepared here, nor are its sizes published; "
                "every position of a row is taken to be a token with loss",
                soft_wrap=True,
            )
        console.print("\nAssumptions", style="bold")
        for text in ASSUMPTIONS:
            console.print(f"  {text}", soft_wrap=True)


def mesh_text(run: PlannedRun) -> str:
    """The axes of the mesh that are longer than 1: `fsdp 32, tensor 4`."""
    sizes = [f"{name} {size}" for name, size in run.layout.mesh.shape.items() if size > 1]
    return ", ".join(sizes) or "one device"


def gib(size: float) -> str:
    """A number of bytes in GiB, to two places, or for less than 0.1 GiB to four."""
    return f"{size / GIB:.2f}" if size >= GIB / 10 else f"{size / GIB:.4f}"


def milliseconds(seconds: float) -> str:
    """A time in ms, to three digits or to whole ones.

    >>> milliseconds(3.0531), milliseconds(0.00123)
    ('3,053', '1.23')
    """
    found = 1000 * seconds
    return f"{found:,.0f}" if found >= 100 or found == 0 else f"{found:.3g}"


def new_table(*columns: str, title: str) -> Table:
    """A table in the manner of all here: texts on the left, then numbers."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), title=title, title_justify="left", min_width=50)
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at else "left", no_wrap=True)
    return table


def budget_table(budget: Budget, usable: float | None = None) -> Table:
    """The shape-only budget, one line a purpose."""
    table = new_table("purpose", "GiB", title="Memory a device, estimated from shapes")
    for name, label in BUDGET_LABELS.items():
        if size := getattr(budget, name):
            table.add_row(label, gib(size))
    table.add_section()
    table.add_row("together", gib(budget.total))
    if usable:
        table.add_row("memory of a device", gib(usable))
    return table


def compiled_table(compiled: Compiled, usable: float | None) -> Table:
    """The compiler's account."""
    title = f"Memory a device, as compiled in {compiled.compile_seconds:.0f} s"
    table = new_table("what", "GiB", title=title)
    for name in ("arguments", "outputs", "donated", "temporaries", "peak"):
        table.add_row(name, gib(getattr(compiled, name)))
    if usable:
        table.add_section()
        table.add_row("memory of a device", gib(usable))
        table.add_row("free", f"{1 - compiled.peak / usable:.1%}")
    return table


def traffic_table(traffic: Traffic) -> Table:
    """Collectives by kind, group and network."""
    columns = ("collective", "devices", "over", "calls", "payload GiB", "sent GiB")
    table = new_table(*columns, title="Collectives of a step")
    for one in traffic.collectives:
        network = "DCN" if one.crosses_slices else "slice"
        table.add_row(one.kind, str(one.group_size), network, f"{one.count:,}",
                      gib(one.payload_bytes), gib(one.sent_bytes))  # fmt: skip
    return table


def roofline_table(roof: Roofline) -> Table:
    """Seconds by resource."""
    table = new_table("resource", "ms", title="Roofline of a step")
    for name, label in (("compute", "compute"), ("memory", "memory"), ("ici", "ICI"),
                        ("dcn", "DCN")):  # fmt: skip
        table.add_row(label, milliseconds(getattr(roof, name)))
    table.add_section()
    table.add_row(f"bound by {roof.bound}", milliseconds(roof.seconds))
    table.caption = (
        f"{roof.model_flops / 1e12:,.{0 if roof.model_flops > 1e14 else 3}f} TFLOP a step by our "
        f"formula; MFU at most {roof.mfu:.0%}"
    )
    return table


def _print_duration(schedule: Schedule, time: Duration, console: Console) -> None:
    console.print(
        f"{schedule.steps:,} steps of {time.step_seconds:.2f} s: {time.hours:.1f} hours, "
        f"{time.chip_hours:,.0f} chip-hours, if {time.efficiency:.0%} of the roofline is reached",
        soft_wrap=True,
    )
    for note in schedule.notes:
        console.print(f"  {note}", soft_wrap=True)


def _peak(one: Candidate) -> str:
    if one.compiled is None:
        return "does not fit"
    return gib(one.compiled.peak) + (", tight" if one.is_tight else "")


def search_table(found: list[Candidate]) -> Table:
    """Compiled candidates, best first."""
    columns = ("mesh", "micro", "remat", "est. GiB", "peak GiB", "ms", "bound")
    table = new_table(*columns, title="Layouts that were compiled")
    for one in found:
        config = one.run.config
        table.add_row(
            mesh_text(one.run), str(config.micro_batches), config.compute.remat,
            gib(one.estimated_bytes), _peak(one),
            milliseconds(one.seconds), one.roof.bound if one.roof else "",
        )  # fmt: skip
    return table
