"""Rotary positions in Hugging Face's half-split layout."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def rotary_rates(width: int, theta: float) -> Float[np.ndarray, " half"]:
    """Radians by which each pair of `width` channels turns from one position to the next.

    Pair i turns by `theta ** (-2 i / width)`: with width 4 and theta 100 the rates are 1 and 0.1.

    Args:
      width: channels that turn, even: a head's, or the first so many of a head.
      theta: base of the rates, 10000 for LLaMA 1 and 2, 500000 for LLaMA 3.

    Source: Su et al. 2021, arXiv 2104.09864, section 3.2.2.
    """
    # Powers in float64, rounded once: NumPy's float32 powers are an ulp off four times as often,
    # which at position 2000 is an angle of 1e-4.
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    powers = np.float64(np.float32(theta)) ** exponents.astype(np.float64)
    return np.float32(1) / powers.astype(np.float32)


def stretch_linear(
    rates: Float[np.ndarray, " half"], *, factor: float
) -> Float[np.ndarray, " half"]:
    """Every rate divided by `factor`, so that positions up to `factor` times further turn alike.

    Source: transformers `modeling_rope_utils._compute_linear_scaling_rope_parameters`.
    """
    return (rates / np.float32(factor)).astype(np.float32)


def stretch_llama3(
    rates: Float[np.ndarray, " half"],
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_length: int,
) -> Float[np.ndarray, " half"]:
    """LLaMA 3.1's rates: fast ones as they are, slow ones divided by `factor`, others between.

    A rate makes `turns = original_length * rate / (2 pi)` full turns in the length of the first
    training. With factor 8, low_freq_factor 1, high_freq_factor 4, original_length 8192:

        turns    5    4    2.5          1      0.5
        share    1    1    0.5          0      0
        becomes  r    r    r (1+1/8)/2  r / 8  r / 8

    Source: transformers `modeling_rope_utils._compute_llama3_parameters`.
    """
    # transformers' operations in their order, each rounded to float32 as torch rounds it (which
    # divides a number by an array by multiplying with the array's inverse): the same bits.
    single = np.float32
    lengths = (single(1) / rates) * single(2 * np.pi)
    turns = (single(1) / lengths) * single(original_length)
    share = (turns - single(low_freq_factor)) / single(high_freq_factor - low_freq_factor)
    slow = rates / single(factor)
    between = (1 - share) * rates / single(factor) + share * rates
    kept = np.where(lengths < single(original_length / high_freq_factor), rates, between)
    return np.where(lengths > single(original_length / low_freq_factor), slow, kept)


def rotary_angles(
    positions: Int[Array, "B T"], rates: Float[np.ndarray | Array, " half"]
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Cosine and sine of every position's angles, always float32.

    Channel pair i turns by `position * rates[i]` radians. bfloat16 angles would be wrong by whole
    radians at position 2000, hence float32 here and in `apply_rotary`.

    Example with rates 1 and 0.1, position 3:

        angles   3.0          0.3
        cos     -0.98999250   0.95533649
        sin      0.14112001   0.29552021

    Args:
      positions: position of each token within its own conversation, >= 0.
      rates: from `rotary_rates`.
    """
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

    With fewer angles than pairs only the first channels turn, as many as twice the angles; the
    others stay (GPT-NeoX).

    Source: transformers `modeling_llama.apply_rotary_pos_emb`.
    """
    width = 2 * cos.shape[-1]
    if width < x.shape[-1]:
        turned = apply_rotary(x[..., :width], cos, sin)
        return jnp.concatenate([turned, x[..., width:]], axis=-1)
    # Swapping the halves by reversing an axis of two compiles to plain loops; slicing them apart
    # and joining them showed up in CPU profiles as two of the slowest loops of a layer.
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, -1)
    # Joined arrays are kept; XLA on CPU would take the cosine of an angle anew for every head in
    # every loop that uses it.
    cos = jnp.stack([cos, cos], axis=2)[:, :, None]
    sin = jnp.stack([-sin, sin], axis=2)[:, :, None]
    turned = halves * cos + jnp.flip(halves, axis=-2) * sin
    return turned.reshape(x.shape).astype(x.dtype)
