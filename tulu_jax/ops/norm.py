"""Root-mean-square normalisation."""

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
