"""Which devices hold the weights: as many copies as have room, each on as few as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from tulu_jax.generate.replicas import Scope
    from tulu_jax.generate.sizes import Sizes
    from tulu_jax.models import ModelConfig


class Placement(NamedTuple):
    """Copies of the weights, called replicas, and their devices."""

    sizes: Sizes
    """Of each."""
    scopes: list[Scope]
    """What makes the devices of each those in force."""
    devices: list[Any]
    """Of each the device, or None where it has several."""
    tensor: int
    """Devices of each."""
    wanted: int
    """Slots that each was to have."""
    platform: str
    bandwidth: float | None
    """Bytes/s of the memory of a replica's devices; None where it is not known."""

    @property
    def plain(self) -> bool:
        """Whether one replica lies where JAX puts things anyway."""
        return len(self.scopes) == 1 and self.tensor == 1

    def lines(self) -> list[str]:
        """What a user is to know."""
        count = len(self.scopes)
        found = []
        if count > 1 or self.tensor > 1:
            many = f"{self.tensor} devices" if self.tensor > 1 else "a device"
            found.append(f"{count} {'replica' if count == 1 else 'replicas'}, each on {many}")
        if self.sizes.slots < self.wanted:
            found.append(f"memory has room for {self.sizes.line()}")
        elif found or self.platform != "cpu":
            found.append(self.sizes.line())
        return found


def find_placement(
    config: ModelConfig,
    *,
    slots: int,
    length: int,
    dtype: str,
    int8: bool = False,
    tensor: int | None = None,
    replicas: int | None = None,
    requests: int | None = None,
) -> Placement:
    """Replicas on the devices of this process, each with slots that fit.

    Args:
      config: the model.
      slots: most that a replica shall have.
      length: tokens of each.
      dtype: of weights and cache.
      int8: whether the layers' matrices are kept in 8 bits.
      tensor: devices of a replica; by default as few as have room for the weights and a slot.
      replicas: copies of the weights; by default as many as there are devices for, one on CPU.
      requests: most that there will be at a time, and so no more replicas; None if not known.

    Raises:
      ConfigError: there are not as many devices, they do not divide the model, or have no room.
    """
    import jax

    from tulu_jax.plan.hardware import chip_of_kind

    devices = jax.local_devices()
    platform = devices[0].platform
    if (tensor or 1) * (replicas or 1) > len(devices):
        raise ConfigError(
            "there are not so many devices",
            got=f"--replicas={replicas or 1} of --tensor={tensor or 1}",
            expected=f"at most the {len(devices)} of this machine",
            do="ask for fewer",
        )
    if platform == "cpu":
        tensor, replicas = tensor or 1, replicas or 1
    fitted = partial(_fit, config, slots=slots, length=length, dtype=dtype, int8=int8)
    most = len(devices) // (replicas or 1)
    sizes, tensor = _narrowest([tensor] if tensor else _powers(most), fitted, replicas or 1)
    count = replicas or len(devices) // tensor
    if requests is not None and replicas is None:
        count = max(1, min(count, requests))
    wanted = slots if requests is None else min(slots, -(-requests // count))
    sizes = sizes._replace(slots=min(sizes.slots, wanted))
    chip = chip_of_kind(devices[0].device_kind)
    groups = [devices[at * tensor : (at + 1) * tensor] for at in range(count)]
    return Placement(
        sizes,
        [nullcontext] if count == tensor == 1 else [_scope(config, group) for group in groups],
        [group[0] if tensor == 1 else None for group in groups],
        tensor,
        wanted,
        platform,
        chip and chip.memory_bandwidth * tensor,
    )


def _powers(most: int) -> list[int]:
    return [1 << at for at in range(most.bit_length()) if 1 << at <= most]


def _narrowest(sizes: Sequence[int], fitted: Any, replicas: int) -> tuple[Sizes, int]:
    """The first number of devices that holds the model; else the last one's complaint.

    Numbers that do not divide the model are passed over, unless there is no other.
    """
    complaint = None
    for tensor in sizes:
        try:
            return fitted(tensor, replicas), tensor
        except ConfigError as error:
            if complaint is None or "divide" not in str(error):
                complaint = error
    assert complaint is not None
    raise complaint


def _fit(
    config: ModelConfig, tensor: int, replicas: int, *, slots: int, length: int, dtype: str,
    int8: bool,
) -> Sizes:  # fmt: skip
    """Slots of a replica on `tensor` devices; refuses a model that they do not divide."""
    import jax

    from tulu_jax.generate.sizes import fit, free_memory
    from tulu_jax.parallel import layout_for

    free = free_memory()
    if free is not None and jax.local_devices()[0].platform == "cpu":
        free //= tensor * replicas  # They share the host's.
    if tensor > 1:
        layout_for(config, _mesh(jax.local_devices()[:tensor]))
    return fit(
        config, slots=slots, length=length, dtype=dtype, free_bytes=free, devices=tensor, int8=int8
    )


def _mesh(devices: Sequence[Any]) -> Any:
    from tulu_jax.parallel import MeshConfig, make_mesh

    return make_mesh(MeshConfig(fsdp=1, tensor=len(devices), slice=1), devices)


def _scope(config: ModelConfig, devices: Sequence[Any]) -> Scope:
    import jax

    from tulu_jax.parallel import layout_for

    if len(devices) == 1:
        return partial(jax.default_device, devices[0])
    return layout_for(config, _mesh(devices)).activate
