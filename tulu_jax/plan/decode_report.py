"""How fast a planned engine could be at best, and what is known of it as tables and JSON values."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console

from tulu_jax.generate.sizes import piece_tokens
from tulu_jax.plan.decoding import Generation, PlannedEngine
from tulu_jax.plan.hardware import Chip
from tulu_jax.plan.hlo import Traffic
from tulu_jax.plan.report import gib, new_table

DECODE_ASSUMPTIONS = (
    "all slots are busy, and hold half of what they can: the mean of texts that grow to the end",
    "memory: a step of decoding reads all weights but the table of embeddings once, and the keys "
    "and values of what each slot holds; a piece of a prompt reads the weights once",
    "compute: matrix products and attention at the bfloat16 peak, which weights in 8 bits do not "
    "raise",
    "network: collectives as compiled, by rings over all links at once",
    "nothing here has run: sampling, the writing of the cache and the start of each kernel come on "
    "top",
)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Tokens a second of one replica, if each resource were the only one."""

    memory: float
    compute: float
    network: float | None
    """None where one device has it all, or what is sent is not known."""
    prefill_memory: float
    prefill_compute: float

    @property
    def decode(self) -> float:
        """The most that can be decoded."""
        return min(self.memory, self.compute, self.network or self.memory)

    @property
    def prefill(self) -> float:
        """The most that can be read of prompts."""
        return min(self.prefill_memory, self.prefill_compute)


def bounds(planned: Generation) -> Bounds | None:
    """The bounds of what was compiled, or None where nothing is known of the devices."""
    return bounds_of(planned.engine, planned.slots, planned.decode.traffic)


def bounds_of(engine: PlannedEngine, slots: int, traffic: Traffic | None = None) -> Bounds | None:
    """The bounds of an engine with so many slots; of the network only where `traffic` is known.

    Source: Williams et al. 2009 (the model); `tulu_jax/plan/hardware.py` (the figures).
    """
    chip, model = engine.topology.chip, engine.model
    if chip is None:
        return None
    held = engine.length / 2
    peak = chip.flops * engine.chips
    attention = 4 * model.num_layers * model.num_heads * model.head_dim * held
    read = engine.read_bytes + slots * held * engine.token_bytes
    layers = model.num_layers * model.num_layer_matmul_params
    piece = piece_tokens(engine.layout.platform)
    return Bounds(
        memory=slots * chip.memory_bandwidth / read,
        compute=peak / (2 * model.num_matmul_params + attention),
        network=traffic and _network(engine, slots, traffic, chip),
        prefill_memory=piece * chip.memory_bandwidth / engine.read_bytes,
        prefill_compute=peak / (2 * layers + attention),
    )


def _network(engine: PlannedEngine, slots: int, traffic: Traffic, chip: Chip) -> float | None:
    sent = traffic.sent_bytes(crosses_slices=False)
    return slots * chip.link_bandwidth * engine.topology.num_links / sent if sent else None


def generation_json(planned: Generation) -> dict[str, Any]:
    """The plan as dictionaries, lists, texts and numbers; sizes in bytes a device."""
    engine, found = planned.engine, bounds(planned)
    chip = engine.topology.chip
    return {
        "topology": engine.topology.name,
        "slice": engine.topology.slice_name,
        "devices": len(engine.topology.devices),
        "tensor": engine.chips,
        "replicas": len(engine.topology.devices) // engine.chips,
        "weights": engine.model.num_params,
        "dtype": engine.compute.dtype,
        "int8": engine.int8,
        "length": engine.length,
        "kernel": engine.kernel.name,
        "kernel_reason": engine.kernel.reason,
        "slots": planned.slots,
        "weight_bytes": engine.weight_bytes,
        "slot_bytes": engine.slot_bytes,
        "usable_bytes": chip and chip.usable_bytes,
        "peak_bytes": planned.peak,
        "decode": dataclasses.asdict(planned.decode),
        "prefill": dataclasses.asdict(planned.prefill),
        "bounds": found and {**dataclasses.asdict(found), "decode": found.decode},
        "assumptions": list(DECODE_ASSUMPTIONS),
    }


def print_generation(planned: Generation, console: Console) -> None:
    """Prints what it is of, memory, slots, the kernel and the bounds."""
    engine, found = planned.engine, bounds(planned)
    replicas = len(engine.topology.devices) // engine.chips
    console.print(
        f"{engine.model.num_params:,} weights in {'int8' if engine.int8 else engine.compute.dtype} "
        f"on {engine.topology.slice_name}: {replicas} replica{'s' * (replicas > 1)} of "
        f"{engine.chips} device{'s' * (engine.chips > 1)}, each {planned.slots} slots of "
        f"{engine.length:,} tokens",
        soft_wrap=True,
    )
    console.print(f"Attention in decoding: {engine.kernel.name}, {engine.kernel.reason}")
    for note in engine.layout.notes:
        console.print(f"  not split: {note}", soft_wrap=True)
    console.print(_memory_table(planned))
    if found is None:
        console.print("No bound on speed: nothing is known of these devices", soft_wrap=True)
        return
    console.print(_speed_table(found, replicas))
    console.print("\nAssumptions", style="bold")
    for text in DECODE_ASSUMPTIONS:
        console.print(f"  {text}", soft_wrap=True)


def _memory_table(planned: Generation) -> Any:
    engine, chip = planned.engine, planned.engine.topology.chip
    seconds = planned.decode.compile_seconds + planned.prefill.compile_seconds
    table = new_table("what", "GiB", title=f"Memory a device, as compiled in {seconds:.0f} s")
    table.add_row("weights", gib(engine.weight_bytes))
    table.add_row("a slot", gib(engine.slot_bytes))
    table.add_row(f"cache of {planned.slots} slots", gib(planned.slots * engine.slot_bytes))
    table.add_row("temporaries of decoding", gib(planned.decode.temporaries))
    table.add_row("temporaries of reading", gib(planned.prefill.temporaries))
    table.add_row("peak", gib(planned.peak))
    if chip:
        table.add_section()
        table.add_row("memory of a device", gib(chip.usable_bytes))
        table.add_row("free", f"{1 - planned.peak / chip.usable_bytes:.1%}")
    return table


def _speed_table(found: Bounds, replicas: int) -> Any:
    table = new_table("tokens/s at most", "decoded", "read", title="Bounds of one replica")
    table.add_row("by memory bandwidth", f"{found.memory:,.0f}", f"{found.prefill_memory:,.0f}")
    table.add_row("by compute", f"{found.compute:,.0f}", f"{found.prefill_compute:,.0f}")
    if found.network:
        table.add_row("by ICI", f"{found.network:,.0f}", "")
    if replicas > 1:
        table.add_section()
        all_decoded, all_read = replicas * found.decode, replicas * found.prefill
        table.add_row(f"all {replicas} replicas", f"{all_decoded:,.0f}", f"{all_read:,.0f}")
    return table
