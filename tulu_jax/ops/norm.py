"""Root-mean-square and layer normalisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(
    x: Float[Array, "*batch D"], scale: Float[Array, " D"], *, eps: float
) -> Float[Array, "*batch D"]:
    """`x` divided by its root mean square over the last axis, times `scale`, in x's dtype.

    The statistics are float32 whatever the dtype of `x`; the result is rounded to x's dtype before
    it is multiplied by `scale`, as transformers does, so bfloat16 runs round alike.

    Args:
      x: activations.
      scale: one factor a channel.
      eps: added to the mean square, > 0; take it from the checkpoint's config, never by habit.

    Source: Zhang and Sennrich 2019, arXiv 1910.07467; transformers `LlamaRMSNorm`.
    """
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    normed = (wide * jax.lax.rsqrt(mean_square + eps)).astype(x.dtype)
    return normed * scale.astype(x.dtype)


def layer_norm(
    x: Float[Array, "*batch D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"],
    *,
    eps: float,
) -> Float[Array, "*batch D"]:
    """`x` with mean 0 and variance 1 over the last axis, times `scale`, plus `bias`, in x's dtype.

    Everything is float32 inside and rounded to x's dtype once, as torch does it.

    Args:
      x: activations.
      scale: one factor a channel.
      bias: one summand a channel.
      eps: added to the variance, > 0.

    Source: Ba et al. 2016, arXiv 1607.06450; `torch.nn.LayerNorm`.
    """
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + eps) * scale + bias).astype(x.dtype)
