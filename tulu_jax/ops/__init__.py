"""Array functions the models are made of: norm, rotary positions, attention, cross-entropy."""

from tulu_jax.ops.adapted import AdaptedWeight
from tulu_jax.ops.attention import attend
from tulu_jax.ops.cross_entropy import token_nll, weighted_nll
from tulu_jax.ops.gated import silu_gate
from tulu_jax.ops.linear import linear
from tulu_jax.ops.norm import layer_norm, rms_norm
from tulu_jax.ops.quantized import QuantizedWeight, dense, quantize
from tulu_jax.ops.rotary import (
    apply_rotary,
    rotary_angles,
    rotary_rates,
    stretch_linear,
    stretch_llama3,
)
from tulu_jax.ops.transposed import TransposedWeight, transposed

__all__ = [
    "AdaptedWeight",
    "QuantizedWeight",
    "TransposedWeight",
    "apply_rotary",
    "attend",
    "dense",
    "layer_norm",
    "linear",
    "quantize",
    "rms_norm",
    "rotary_angles",
    "rotary_rates",
    "silu_gate",
    "stretch_linear",
    "stretch_llama3",
    "token_nll",
    "transposed",
    "weighted_nll",
]
