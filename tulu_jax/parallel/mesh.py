"""The device mesh: which device stands where on the axes of `MESH_AXES`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from tulu_jax.axes import MESH_AXES
from tulu_jax.errors import ConfigError
from tulu_jax.fields import Check, check_fields, setting

_SIZE = Check(lambda n: n > 0 or n == -1, "1 or more, or -1 for all devices that are left")
MACROS = ", ".join(f"MESH_{name.upper()}" for name in MESH_AXES)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each axis; one axis may be -1, "all that are left".

    Raises:
      ConfigError: a size is 0 or below -1, or more than one (but `slice`) is -1.
    """

    data: int = setting(
        1, _SIZE, macro="MESH_DATA", help="copies of the weights; rows are spread over them"
    )
    fsdp: int = setting(
        -1, _SIZE, macro="MESH_FSDP",
        help="shards of the weights and of the optimizer state, rows are spread over these too; "
        "-1: all devices left",
    )  # fmt: skip
    tensor: int = setting(
        1, _SIZE, macro="MESH_TENSOR",
        help="shards of every layer's matrices: heads, feed-forward channels, vocabulary",
    )  # fmt: skip
    sequence: int = setting(
        1, _SIZE, macro="MESH_SEQUENCE",
        help="parts of every row of tokens, for long rows; shards of weights too",
    )  # fmt: skip
    slice: int = setting(
        -1, _SIZE, macro="MESH_SLICE",
        help="pod slices with a copy of the weights each; -1: as the devices come",
    )  # fmt: skip
    axis_rules: Mapping[str, str | Sequence[str] | None] = setting(
        factory=dict, macro="AXIS_RULES",
        help="{logical axis: mesh axis, axes or None} in place of the default rules",
    )  # fmt: skip
    offload_optimizer: bool = setting(
        False, macro="OFFLOAD_OPTIMIZER",
        help="True keeps the optimizer's moments in the hosts' memory: 8 bytes a weight less on "
        "the devices, and as many bytes to and fro in every step",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Checks each size."""
        check_fields(self)
        within = [getattr(self, name) for name in MESH_AXES if name != "slice"]
        if within.count(-1) > 1:
            raise ConfigError(
                "more than one mesh axis is -1", got=self, expected="at most one axis to be -1"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes in the order of `MESH_AXES`, -1 included."""
        return tuple(getattr(self, name) for name in MESH_AXES)

    def resolve(self, num_devices: int, num_slices: int = 1) -> tuple[int, ...]:
        """The sizes with -1 filled in, in the order of `MESH_AXES`.

        Args:
          num_devices: all devices.
          num_slices: slices that they come in; what `slice=-1` stands for.

        Raises:
          ConfigError: the axes do not multiply to the number of devices, or one slice of the mesh
            would lie on several slices of devices.
        """
        slices = num_slices if self.slice == -1 else self.slice
        if num_slices > 1 and slices != num_slices:
            raise ConfigError(
                "mesh does not keep slices apart",
                got=f"MESH_SLICE={self.slice}",
                expected=f"{num_slices}, the slices that the {num_devices} devices come in, or -1",
            )
        sizes = (slices, *self.sizes[1:])
        fixed = math.prod(size for size in sizes if size != -1)
        sizes = tuple(num_devices // fixed if size == -1 else size for size in sizes)
        if math.prod(sizes) != num_devices:
            asked = zip(MESH_AXES, (slices, *self.sizes[1:]), strict=True)
            raise ConfigError(
                "mesh does not use all devices",
                got=", ".join(f"{name}={size}" for name, size in asked),
                expected=f"sizes whose product is the {num_devices} devices present",
                do=f"change one of {MACROS}",
            )
        return sizes


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices` (default: all), neighbours in the network where the platform tells.

    The devices of a pod slice stay together on axis `slice`; those of a described topology, which
    nobody holds, are taken as well. Axis types are Auto: the compiler propagates shardings between
    our constraints.

    Raises:
      ConfigError: the sizes do not fit the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if devices[0].platform != "tpu":
        return _mesh(np.asarray(devices).reshape(config.resolve(len(devices))))
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    sizes = config.resolve(len(devices), num_slices)
    if num_slices == 1:
        return _mesh(mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True))
    grid = mesh_utils.create_hybrid_device_mesh(
        (1, *sizes[1:]),
        (num_slices,) + (1,) * len(sizes[1:]),
        devices,
        allow_split_physical_axes=True,
    )
    return _mesh(grid)


def _mesh(grid: np.ndarray) -> Mesh:
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
