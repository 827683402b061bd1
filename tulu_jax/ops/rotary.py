"""Rotary positions in Hugging Face's half-split layout."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotary_angles(
    positions: Int[Array, "B T"], *, head_dim: int, theta: float
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Cosine and sine of every position's angles, always float32.

    Channel pair i turns by `position * theta ** (-2 i / head_dim)` radians. bfloat16 angles would
    be wrong by whole radians at position 2000, hence float32 here and in `apply_rotary`.

    Example with head_dim 4, theta 100 (so the two rates are 1 and 0.1), position 3:

        angles   3.0          0.3
        cos     -0.98999250   0.95533649
        sin      0.14112001   0.29552021

    Args:
      positions: position of each token within its own conversation, >= 0.
      head_dim: width of a head, even.
      theta: base of the rates, 10000 for LLaMA.

    Source: Su et al. 2021, arXiv 2104.09864, section 3.2.2.
    """
    rates = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) * rates
    return jnp.cos(angles), jnp.sin(angles)


def apply_rotary(
    x: Float[Array, "B T heads H"],
    cos: Float[Array, "B T half"],
    sin: Float[Array, "B T half"],
) -> Float[Array, "B T heads H"]:
    """Every head of `x` turned by the angles, in x's dtype.

    Half-split layout: channel i is paired with channel i + H/2 (Meta's own checkpoints pair 2i with
    2i + 1). One head of width 4 at cos = (c0, c1), sin = (s0, s1):

        x       a         b         c         d
        result  a c0-c s0 b c1-d s1 c c0+a s0 d c1+b s1

    Source: transformers `modeling_llama.apply_rotary_pos_emb`.
    """
    # Swapping the halves by reversing an axis of two compiles to plain loops; slicing them apart
    # and joining them showed up in CPU profiles as two of the slowest loops of a layer.
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, -1)
    cos = cos[:, :, None, None, :]
    sin = jnp.stack([-sin, sin], axis=2)[:, :, None]
    turned = halves * cos + jnp.flip(halves, axis=-2) * sin
    return turned.reshape(x.shape).astype(x.dtype)
