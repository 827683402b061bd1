"""The device mesh: data (copies), fsdp (weights in shards), tensor (matrices in shards)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from tulu_jax.axes import MESH_AXES
from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_field_types


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each axis; one axis may be -1, "all that are left".

    Raises:
      ConfigError: a size is 0 or below -1, or more than one is -1.
    """

    data: int = 1
    """Copies of the weights; rows of the batch are spread over them."""
    fsdp: int = -1
    """Shards of every weight and of the optimizer state; rows are spread over these too."""
    tensor: int = 1
    """Shards of heads, feed-forward channels and vocabulary within a layer."""

    def __post_init__(self) -> None:
        """Checks each size."""
        check_field_types(self)
        for name, size in zip(MESH_AXES, self.sizes, strict=True):
            if size == 0 or size < -1:
                raise ConfigError(
                    "mesh axis has an impossible size",
                    got=f"MeshConfig.{name}={size}",
                    expected="1 or more, or -1 for all devices that are left",
                )
        if self.sizes.count(-1) > 1:
            raise ConfigError(
                "more than one mesh axis is -1", got=self, expected="at most one axis to be -1"
            )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sizes in the order of `MESH_AXES`, -1 included."""
        return (self.data, self.fsdp, self.tensor)

    def resolve(self, num_devices: int) -> tuple[int, ...]:
        """The sizes with -1 filled in for `num_devices`.

        Raises:
          ConfigError: the axes do not multiply to the number of devices.
        """
        fixed = math.prod(size for size in self.sizes if size != -1)
        sizes = tuple(num_devices // fixed if size == -1 else size for size in self.sizes)
        if math.prod(sizes) != num_devices:
            raise ConfigError(
                "mesh does not use all devices",
                got=f"data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}",
                expected=f"sizes whose product is the {num_devices} devices present",
                do="change MESH_DATA, MESH_FSDP or MESH_TENSOR",
            )
        return sizes


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over `devices` (default: all), neighbours in the network where the platform tells.

    Axis types are Auto: the compiler propagates shardings between our constraints.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.resolve(len(devices))
    if devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices).reshape(sizes)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
