"""Devices to plan for: TPU slices that need not exist, virtual CPU devices, or those at hand."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from tulu_jax.errors import ConfigError
from tulu_jax.plan.hardware import CHIPS, Chip, chip_of_kind

TOPOLOGY = re.compile(r"([a-z]\w*?)[:](\d+(?:x\d+){0,2})")
SLICE_NAME = re.compile(r"(v\w+)-(\d+)")
CORES = {"v4": 2, "v5p": 2}
"""Generations whose slices are named by their cores: v4-32 has 16 chips."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """The devices a run is planned for."""

    name: str
    devices: tuple[Any, ...]
    chip: Chip | None
    """None where nothing is known of the devices, as for CPUs."""
    sides: tuple[int, ...] = ()
    """Chips along each side of one slice; empty where there is no such network."""
    num_slices: int = 1

    @property
    def num_links(self) -> int:
        """Links to neighbours that a device in a ring over all sides sends on.

        None along a side of 1, one along a side that does not close to a ring, else two.
        """
        if self.chip is None or not self.sides:
            return 1
        closed = [side % self.chip.wraps == 0 for side in self.sides]
        if self.chip.dimensions == 3:  # Cubes close on all sides or on none.
            closed = [all(closed)] * len(self.sides)
        return max(1, sum((s > 1) * (1 + ring) for s, ring in zip(self.sides, closed, strict=True)))

    @property
    def slice_name(self) -> str:
        """What the slice is called when it is ordered: `v4-32`, or `2 x v4-32`."""
        if self.chip is None or not self.sides:
            return self.name
        count = math.prod(self.sides) * CORES.get(self.chip.name, 1)
        times = f"{self.num_slices} x " if self.num_slices > 1 else ""
        return f"{times}{self.chip.name}-{count}"


def find_topology(name: str, *, num_slices: int = 1) -> Topology:
    """The devices called `name`: `v4:4x4x8`, `v4-256`, `cpu:8` or `local`.

    A TPU slice needs no TPU, but the package libtpu, which holds the compiler.

    Raises:
      ConfigError: no such topology, or libtpu is missing or in use.
    """
    if num_slices < 1:
        raise ConfigError("--num_slices is out of range", got=num_slices, expected="1 or more")
    on_tpu = any(name.startswith(chip.name) for chip in CHIPS.values() if chip.is_tpu)
    if num_slices > 1 and not on_tpu:
        raise ConfigError(
            "only TPUs come in slices", got=f"--num_slices={num_slices} of {name}",
            expected="a TPU topology, such as v4:4x4x8",
        )  # fmt: skip
    if name == "local":
        return _at_hand(name, jax.devices())
    named = SLICE_NAME.fullmatch(name)
    if named and named[1] in CHIPS:
        name = _by_count(CHIPS[named[1]], int(named[2]))
    match = TOPOLOGY.fullmatch(name)
    if match and match[1] == "cpu":
        return _at_hand(name, _cpus(int(match[2])))
    if not match or match[1] not in CHIPS or not CHIPS[match[1]].is_tpu:
        raise _unknown(name)
    return _slices(CHIPS[match[1]], match[2], num_slices)


def slice_sizes(chip: Chip) -> list[tuple[int, str]]:
    """Chips of each slice of `chip` that can be had, and its topology, smallest first."""
    return [(math.prod(map(int, sides.split("x"))), sides) for sides in chip.slices]


def _by_count(chip: Chip, count: int) -> str:
    """`v4-256` -> `v4:4x4x8`."""
    cores = CORES.get(chip.name, 1)
    for chips, sides in slice_sizes(chip):
        if chips * cores == count:
            return f"{chip.name}:{sides}"
    known = ", ".join(f"{chip.name}-{chips * cores}" for chips, _ in slice_sizes(chip))
    raise ConfigError("no slice of this size", got=f"{chip.name}-{count}", expected=known)


def _unknown(name: str) -> ConfigError:
    tpus = ", ".join(f"{chip.name}:{chip.slices[2]}" for chip in CHIPS.values() if chip.is_tpu)
    return ConfigError(
        "topology is unknown", got=repr(name), expected=f"{tpus}, v4-32, cpu:8 or local"
    )


def _cpus(count: int) -> list[Any]:
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ConfigError(
            "too few virtual CPU devices",
            got=f"{len(devices)}",
            expected=f"{count}",
            do=f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}",
        )
    return devices[:count]


def _at_hand(name: str, devices: Sequence[Any]) -> Topology:
    return Topology(name, tuple(devices), chip_of_kind(devices[0].device_kind))


def _slices(chip: Chip, sides: str, num_slices: int) -> Topology:
    from jax.experimental import topologies

    name = f"{chip.name}:{sides}"
    _quiet_libtpu()
    options: dict[str, Any] = dict(chip.topology_options)
    if num_slices > 1:
        options["num_slices"] = num_slices
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{chip.topology_prefix}:{sides}", **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise _refused(name, str(error), chip) from error
    except (RuntimeError, ImportError) as error:
        raise ConfigError(
            "TPU programs cannot be compiled on this machine",
            got=_first_line(str(error)),
            expected="the package libtpu, which holds the compiler and needs no TPU",
            do="pip install 'tulu-jax[plan]'",
        ) from error
    lengths = tuple(int(side) for side in sides.split("x"))
    return Topology(name, tuple(found.devices), chip, lengths, num_slices)


def _refused(name: str, text: str, chip: Chip) -> ConfigError:
    if "lockfile" in text:
        return ConfigError(
            "libtpu is in use by another process",
            got=_first_line(text),
            expected="one process at a time",
            do="wait for it to end; remove /tmp/libtpu_lockfile only if there is none",
        )
    return ConfigError(
        "there is no such slice",
        got=name,
        at=_first_line(text),
        expected=", ".join(f"{chip.name}:{sides}" for sides in chip.slices),
    )


def _quiet_libtpu() -> None:
    """Keeps libtpu from asking a cloud that is not there who this machine is.

    Nor need it be alone on the machine: it only compiles, and takes hold of no TPU.
    """
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v4-8"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_MIN_LOG_LEVEL", "3"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        os.environ.setdefault(name, value)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no message"
