"""The attention kernels by name, and what the rest of the program must know of each."""

from __future__ import annotations

import dataclasses
import importlib

from tulu_jax.ops.attention.sharded import RowKernel


@dataclasses.dataclass(frozen=True)
class AttentionKernel:
    """A kernel for training rows."""

    name: str
    """Its name in `ATTENTION`."""
    function: RowKernel | str
    """It, or `module:function`, imported when asked for: Pallas takes half a second to import that
    runs on CPU need not spend."""
    platform: str | None = None
    """`tpu` or `gpu` (NVIDIA) where it runs on these alone."""
    half_only: bool = False
    """Whether it refuses float32."""
    package: str | None = None
    """The package that must be installed beside JAX."""
    keeps_scores: bool = False
    """Whether its gradient needs all scores of a row, as that of a flash kernel does not."""
    tags_residuals: bool = False
    """Whether it calls what its gradient needs by the name `masks.RESIDUALS`."""
    residuals_of: str | None = None
    """Otherwise, where its gradient needs more than its result: how the name of the JAX primitive
    begins that makes it."""

    def load(self) -> RowKernel:
        """The function."""
        if not isinstance(self.function, str):
            return self.function
        module, name = self.function.split(":")
        return getattr(importlib.import_module(f"tulu_jax.ops.attention.{module}"), name)


KERNELS: dict[str, AttentionKernel] = {}


def register(kernel: AttentionKernel) -> AttentionKernel:
    """Puts a kernel among those that `ATTENTION` may name.

    Raises:
      ValueError: there is another of that name.
    """
    if kernel.name in KERNELS:
        raise ValueError(f"attention kernel {kernel.name} is registered already")
    KERNELS[kernel.name] = kernel
    return kernel


register(AttentionKernel("dense", "dense:dense_rows", keeps_scores=True))
register(
    AttentionKernel("blockwise", "blockwise:blockwise_rows", keeps_scores=True, tags_residuals=True)
)
register(AttentionKernel("splash", "splash:splash_attention", platform="tpu", tags_residuals=True))
register(
    AttentionKernel(
        "cudnn",
        "gpu:cudnn_attention",
        platform="gpu",
        half_only=True,
        residuals_of="dot_product_attention_fwd",
    )
)
register(AttentionKernel("tokamax", "gpu:tokamax_attention", platform="gpu", package="tokamax"))
