"""Real programs compiled ahead of time, the training step first: what the compiler says."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax

from tulu_jax.errors import ConfigError
from tulu_jax.ops.cross_entropy import chunk_size
from tulu_jax.parallel import Layout
from tulu_jax.plan.hlo import Traffic, read_traffic
from tulu_jax.plan.planned import PlannedRun
from tulu_jax.plan.topology import Topology
from tulu_jax.train.step import described_devices


class TooLargeError(ConfigError):
    """The program does not fit into the memory of a device."""

    needed: float | None = None
    """Bytes that the compiler says are needed, of one kind or another; None if it does not say."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Bytes on one device, by the compiler's own account, and what is sent."""

    arguments: float
    """State, and the batch."""
    outputs: float
    donated: float
    """Of the outputs, what is written over the arguments."""
    temporaries: float
    peak: float
    """All that is held at the fullest moment; on CPU, which does not say, the sum of the above."""
    traffic: Traffic
    compile_seconds: float


def compile_step(run: PlannedRun) -> Compiled:
    """The step as the devices would run it: the loop's own function, shardings and donation.

    Raises:
      TooLargeError: it does not fit.
    """
    start = time.perf_counter()
    # Made before the mesh is in force: under a mesh that is only described nothing may be computed.
    step, arguments = run.step(), (run.state(), run.batch(), *run.frozen())
    with run.layout.activate():
        program = compile_lowered(
            step.lower(*arguments), run.topology, run.layout, what="the step",
            do="take more devices, more MICRO_BATCHES, or `tulu plan --search`",
        )  # fmt: skip
    traffic = traffic_of(program.as_text() or "", run)
    return account(program, run.layout, traffic, time.perf_counter() - start)


def compile_lowered(lowered: Any, topology: Topology, layout: Layout, *, what: str, do: str) -> Any:
    """The program for devices that need not be there.

    Args:
      lowered: what `jit` has lowered.
      topology: the devices.
      layout: the mesh of them.
      what: the program's name in messages.
      do: what to do if it does not fit.

    Raises:
      TooLargeError: it does not fit.
    """
    try:
        with described_devices():
            return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        at = f"{topology.name}, mesh {_mesh(layout)}"
        raise _too_large(str(error), what, at, do) from error


def account(program: Any, layout: Layout, traffic: Traffic, seconds: float) -> Compiled:
    """The compiler's account of a program."""
    memory = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        donated=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=held if layout.platform == "cpu" else memory.peak_memory_in_bytes,
        traffic=traffic,
        compile_seconds=seconds,
    )


def traffic_of(text: str, run: PlannedRun) -> Traffic:
    """What the compiled step sends; the loss's loop is taken to see every position."""
    devices = list(run.layout.mesh.devices.flat)
    slices = [getattr(device, "slice_index", None) or 0 for device in devices]
    columns = -(-run.model.vocab_size // run.mesh_size())
    chunk = chunk_size(max(run.positions, 1), columns)
    return read_traffic(
        text,
        num_devices=len(devices),
        slices=slices if len(set(slices)) > 1 else (),
        open_loop_turns=max(0, -(-run.positions // chunk) - 1),
    )


def _too_large(text: str, what: str, at: str, do: str) -> TooLargeError:
    sizes = re.search(r"\((\d+(?:\.\d+)?)([KMGT])\) exceeds available \w+ \((\S+?)\)", text)
    more = re.search(r"Used (\d+(?:\.\d+)?)([KMGT]) of (\S+) hbm", text)
    found = sizes or more
    error = TooLargeError(
        f"{what} does not fit",
        got=f"{found[1]}{found[2]} of {found[3]}" if found else text.splitlines()[0],
        at=at,
        expected="less than a device's memory",
        do=do,
    )
    if found:
        error.needed = float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1)
    return error


def _mesh(layout: Layout) -> str:
    sizes = {name: size for name, size in layout.mesh.shape.items() if size > 1}
    return " x ".join(f"{name} {size}" for name, size in sizes.items()) or "of one device"
