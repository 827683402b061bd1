"""The choice of the kernel: by the devices of the mesh in force, never by a silent fallback."""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import jax

from tulu_jax.errors import ConfigError
from tulu_jax.ops.attention.kernels import KERNELS


class Choice(NamedTuple):
    """A kernel's name, and one line for the log on why it is this one."""

    name: str
    reason: str


def choose_kernel(requested: str, dtype: str, mesh: Any = None) -> Choice:
    """The kernel that `requested` stands for, on the devices of `mesh`.

    `auto` takes on TPU `splash`, on NVIDIA GPUs in bfloat16 `cudnn`, and elsewhere `blockwise`.

    Args:
      requested: `auto` or one of `KERNELS`.
      dtype: of activations, float32 or bfloat16.
      mesh: of devices, or of their topology alone; None takes the mesh in force, and without one
        the devices JAX would use.

    Raises:
      ConfigError: the kernel cannot run on those devices, in that dtype, or is not installed.
    """
    platform = platform_of(mesh)
    if requested != "auto":
        _check(requested, dtype, platform)
        return Choice(requested, f"as ATTENTION says, on {platform}")
    if platform == "tpu":
        return Choice("splash", "the flash kernel for TPU")
    if platform == "gpu" and dtype == "bfloat16":
        return Choice("cudnn", "the flash kernel for GPU")
    if platform == "gpu":
        return Choice("blockwise", f"cuDNN's flash kernel does not take {dtype}")
    return Choice("blockwise", f"the fastest on {platform}")


def _check(name: str, dtype: str, platform: str) -> None:
    kernel = KERNELS[name]
    if kernel.platform not in (None, platform):
        usable = [one.name for one in KERNELS.values() if one.platform in (None, platform)]
        raise ConfigError(
            "attention kernel cannot run on these devices",
            got=f"ATTENTION={name!r} on {platform}",
            expected=" or ".join(usable),
            do="set ATTENTION='auto'",
        )
    if kernel.half_only and dtype == "float32":
        raise ConfigError(
            "attention kernel does not take this dtype",
            got=f"ATTENTION={name!r} with DTYPE={dtype!r}",
            expected="bfloat16",
            do="set DTYPE='bfloat16' or ATTENTION='auto'",
        )
    if kernel.package and importlib.util.find_spec(kernel.package) is None:
        raise ConfigError(
            "attention kernel is not installed",
            got=f"ATTENTION={name!r}",
            expected=f"the package {kernel.package}",
            do=f"`pip install {kernel.package}`, or set ATTENTION='auto'",
        )


def platform_of(mesh: Any = None) -> str:
    """`tpu`, `gpu` (NVIDIA), `rocm` or `cpu`: what the devices of `mesh` are; None as above."""
    device = _device_of(mesh)
    kind = device.device_kind.lower()
    if device.platform in ("gpu", "cuda", "rocm"):
        return "rocm" if device.platform == "rocm" or "amd" in kind else "gpu"
    return device.platform


def device_kind() -> str:
    """What JAX calls the devices of the mesh in force, such as `TPU v5 lite`."""
    return _device_of(None).device_kind


def mesh_in_force() -> Any:
    """The mesh of `jax.set_mesh`; an empty one without."""
    return jax.sharding.get_abstract_mesh()


def _device_of(mesh: Any) -> Any:
    mesh = mesh_in_force() if mesh is None else mesh
    if mesh.empty:
        return jax.devices()[0]
    if isinstance(mesh, jax.sharding.Mesh):
        return mesh.devices.flat[0]
    return mesh.abstract_device or jax.devices()[0]
