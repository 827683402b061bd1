"""Settings of a model's computation: dtype, recomputation, attention kernel."""

from __future__ import annotations

import dataclasses
from typing import Any

from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_fields, least, one_of, setting
from tulu_jax.models.remat import ALIASES, POLICIES, TAGS, kept_names, split_names
from tulu_jax.ops.attention import KERNELS, Choice, choose_kernel, platform_of


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """Settings that change speed, memory and rounding, but never what is computed.

    Raises:
      ConfigError: an unknown dtype, kernel or remat policy, or fewer than one layer in a row.
    """

    dtype: str = setting(
        "float32", one_of("float32", "bfloat16"), macro="DTYPE",
        help="'bfloat16' or 'float32' compute; weights, norms, softmax, rotary angles and the loss "
        "are float32 always",
    )  # fmt: skip
    remat: str = setting(
        "none", macro="REMAT", help="recomputation in the backward pass: 'none', 'minimal' "
        "('dots': all but matrix products), 'attention' (all but what attention made) or 'full' "
        "(each layer from its input); or the names to keep of remat.TAGS, by commas",
    )  # fmt: skip
    offload_activations: str = setting(
        "", macro="OFFLOAD_ACTIVATIONS", help="names of activations kept in the host's memory, by "
        "commas: layer_input, or what REMAT keeps (TPU and GPU)",
    )  # fmt: skip
    unroll_layers: int = setting(
        1, least(1), macro="UNROLL_LAYERS",
        help="layers traced in a row; more is faster on CPU, slower to compile",
    )  # fmt: skip
    attention: str = setting(
        "auto", one_of("auto", *KERNELS), macro="ATTENTION",
        help="'auto': the devices' own kernel; or dense, blockwise, splash, cudnn ...",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Checks the names."""
        check_fields(self)
        self._check_remat()

    def _check_remat(self) -> None:
        named = (*POLICIES, *ALIASES)
        kept = kept_names(self.remat)
        for name in kept or ():
            _one_of("remat", name, TAGS, ("none", *named))
        moved = split_names(self.offload_activations)
        for name in moved:
            _one_of("offload_activations", name, TAGS)
        if moved and kept is None:
            raise ConfigError(
                "activations can only be offloaded where others are recomputed",
                got=f"OFFLOAD_ACTIVATIONS={self.offload_activations!r} with REMAT='none'",
                expected=" or ".join(named),
                do="set REMAT='full' to keep nothing else",
            )


def _one_of(name: str, value: str, known: tuple[str, ...], besides: tuple[str, ...] = ()) -> None:
    if value not in known:
        raise ConfigError(
            f"ComputeConfig.{name} is unknown",
            got=repr(value),
            expected=" or ".join((*besides, *known)),
        )


def attention_kernel(compute: ComputeConfig, mesh: Any = None) -> Choice:
    """The kernel of training rows on the devices of `mesh` (None: in force), and why this one.

    Raises:
      ConfigError: the one asked for cannot run there.
    """
    return choose_kernel(compute.attention, compute.dtype, mesh)


def check_offload(compute: ComputeConfig, mesh: Any = None) -> None:
    """Refuses offloading where host memory is not apart from that of the devices.

    Raises:
      ConfigError: activations are to be offloaded on another platform than TPU or GPU.
    """
    platform = platform_of(mesh)
    if compute.offload_activations and platform not in ("tpu", "gpu"):
        raise ConfigError(
            "activations cannot be offloaded on these devices",
            got=f"OFFLOAD_ACTIVATIONS={compute.offload_activations!r} on {platform}",
            expected="TPU or GPU",
            do="set OFFLOAD_ACTIVATIONS=''",
        )
