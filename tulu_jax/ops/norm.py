"""Root-mean-square and layer normalisation, with gradients that keep nothing but their input.

JAX's own gradients would keep the input again in float32, and the normed values beside it: for
bfloat16 activations three times as much. What is missing is one product away.
"""

from __future__ import annotations

from functools import partial

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
    return _rms_norm(x, scale, eps)


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
    return _layer_norm(x, scale, bias, eps)


# With n the normed values, s the scale, g the gradient of the result and m(.) the mean over
# channels, the gradient of x is r (gs - n m(gs n)) for the RMS norm, where x = n / r, and
# r (gs - m(gs) - n m(gs n)) for the layer norm; that of the scale is the sum of g n.


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rms_norm(x: Array, scale: Array, eps: float) -> Array:
    return _rms_forward(x, scale, eps)[0]


def _rms_forward(x: Array, scale: Array, eps: float) -> tuple[Array, tuple[Array, ...]]:
    wide = x.astype(jnp.float32)
    rate = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    normed = (wide * rate).astype(x.dtype)
    return normed * scale.astype(x.dtype), (x, scale, rate)


def _rms_backward(eps: float, saved: tuple[Array, ...], upstream: Array) -> tuple[Array, Array]:
    del eps
    x, scale, rate = saved
    normed, pull = x.astype(jnp.float32) * rate, upstream.astype(jnp.float32)
    rounded = normed.astype(x.dtype).astype(jnp.float32)
    scaled = pull * scale.astype(x.dtype).astype(jnp.float32)
    share = jnp.mean(scaled * normed, axis=-1, keepdims=True)
    x_grad = rate * (scaled - normed * share)
    return x_grad.astype(x.dtype), _over_channels(pull * rounded).astype(scale.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> Array:
    return _layer_forward(x, scale, bias, eps)[0]


def _layer_forward(
    x: Array, scale: Array, bias: Array, eps: float
) -> tuple[Array, tuple[Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    rate = jax.lax.rsqrt(variance + eps)
    result = ((wide - mean) * rate * scale + bias).astype(x.dtype)
    return result, (x, scale, bias, mean, rate)


def _layer_backward(
    eps: float, saved: tuple[Array, ...], upstream: Array
) -> tuple[Array, Array, Array]:
    del eps
    x, scale, bias, mean, rate = saved
    normed, pull = (x.astype(jnp.float32) - mean) * rate, upstream.astype(jnp.float32)
    scaled = pull * scale
    share = jnp.mean(scaled * normed, axis=-1, keepdims=True)
    x_grad = rate * (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - normed * share)
    return (
        x_grad.astype(x.dtype),
        _over_channels(pull * normed).astype(scale.dtype),
        _over_channels(pull).astype(bias.dtype),
    )


def _over_channels(x: Float[Array, "*batch D"]) -> Float[Array, " D"]:
    return jnp.sum(x, axis=tuple(range(x.ndim - 1)))


_rms_norm.defvjp(_rms_forward, _rms_backward)
_layer_norm.defvjp(_layer_forward, _layer_backward)
