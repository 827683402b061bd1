"""What each kind of chip can do: the only place with figures of hardware.

Sources, all read in 2026-11:
  FLOP/s, memory, memory bandwidth: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}.
  One way of one link between chips: the per-chip bidirectional figures there (v5e 400, v5p 1200,
    v6e 800 GB/s), divided by 2 and by the number of ports, agree with the 45 and 90 GB/s measured
    in "How to Scale Your Model" (jax-ml.github.io/scaling-book/tpus), which are taken here.
  Between slices: the same book's egress per TPU; v5p's 50 Gbit/s agrees with Google's page.
  `usable_bytes`: the limit the compiler itself names when a program is too large
    ("exceeds available HBM (30.75G)"), libtpu 0.0.42.1.
  GPUs: NVIDIA's data sheets, dense bfloat16, SXM forms.
"""

from __future__ import annotations

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts devices: for v7x half a chip, for all others a whole one."""

    name: str
    kind: str
    """How the name of its kind in JAX begins."""
    flops: float
    """Peak FLOP/s of matrix products in bfloat16."""
    usable_bytes: float
    """Memory that a program may use."""
    memory_bandwidth: float
    """Bytes/s between its memory and its units."""
    link_bandwidth: float
    """Bytes/s one way over one link to a neighbour."""
    dcn_bandwidth: float
    """Bytes/s out to other slices, its share of the host's."""
    wraps: int = 0
    """A side of the slice closes to a ring when this divides it; 0: sides never close."""
    dimensions: int = 3
    """Sides of the network."""
    topology_options: tuple[tuple[str, str], ...] = ()
    """What libtpu must be told besides the name."""
    topology_prefix: str = ""
    """What libtpu calls the generation."""
    slices: tuple[str, ...] = ()
    """Slices that can be had, smallest first."""

    @property
    def is_tpu(self) -> bool:
        """Whether it is a TPU, whose programs libtpu compiles anywhere."""
        return bool(self.topology_prefix)


_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_SQUARES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v4", "TPU v4", 275e12, 30.75 * GIB, 1.228e12, 4.5e10, 6.25e9, wraps=4,
            topology_options=(("chip_config_name", "megacore"),), topology_prefix="v4",
            slices=_CUBES,
        ),
        Chip(
            "v5e", "TPU v5 lite", 197e12, 15.75 * GIB, 8.19e11, 4.5e10, 3.125e9, wraps=16,
            dimensions=2, topology_prefix="v5e", slices=_SQUARES,
        ),
        Chip(
            "v5p", "TPU v5", 459e12, 95.74 * GIB, 2.765e12, 9e10, 6.25e9, wraps=4,
            topology_prefix="v5p", slices=_CUBES,
        ),
        Chip(
            "v6e", "TPU v6 lite", 918e12, 31.25 * GIB, 1.638e12, 9e10, 1.25e10, wraps=16,
            dimensions=2, topology_prefix="v6e", slices=_SQUARES,
        ),
        Chip(
            "v7x", "TPU7x", 2307e12 / 2, 94.75 * GIB, 7.38e12 / 2, 9e10, 6.25e9, wraps=4,
            topology_prefix="tpu7x", slices=_CUBES,
        ),
        Chip("a100", "NVIDIA A100", 312e12, 78e9, 2.039e12, 3e11, 2.5e10),
        Chip("h100", "NVIDIA H100", 989e12, 78e9, 3.35e12, 4.5e11, 5e10),
        Chip("h200", "NVIDIA H200", 989e12, 139 * GIB, 4.8e12, 4.5e11, 5e10),
    )
}  # fmt: skip
"""By the name that `--topology` takes."""


def chip_of_kind(device_kind: str) -> Chip | None:
    """The chip of a JAX device kind, or None for one that is not in the table.

    >>> chip_of_kind("TPU v5 lite").name, chip_of_kind("TPU v5").name, chip_of_kind("cpu")
    ('v5e', 'v5p', None)
    """
    known = [chip for chip in CHIPS.values() if device_kind.startswith(chip.kind)]
    return max(known, key=lambda chip: len(chip.kind), default=None)
