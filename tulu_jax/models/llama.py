"""LLaMA in Flax linen: RMS norm, rotary grouped-query attention, gated feed-forward.

Source: Touvron et al. 2023, arXiv 2302.13971; transformers `modeling_llama.py`.
"""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.families import LlamaConfig
from tulu_jax.models.layers import (
    ACTIVATION_AXES,
    Attention,
    Cache,
    GatedMlp,
    LayerCache,
    RmsNorm,
    Rotary,
    Where,
    constrain,
    embed,
    locate,
    run_layers,
)
from tulu_jax.models.remat import tag
from tulu_jax.ops import rotary_angles, rotary_rates, stretch_linear, stretch_llama3


class Layer(nn.Module):
    """One decoder layer, in the form that `run_layers` takes."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache | None, where: Where
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The activations after attention and feed-forward, each added to its input."""
        c = self.config
        x = tag(x, "layer_input")
        normed = RmsNorm(c.norm_eps, name="attention_norm")(x)
        attention = Attention(c.num_heads, c.num_kv_heads, c.head_dim, name="attention")
        mixed, cache = attention(normed, where, cache)
        x = constrain(x + mixed, ACTIVATION_AXES)
        normed = RmsNorm(c.norm_eps, name="mlp_norm")(x)
        x = x + GatedMlp(c.d_ff, name="mlp")(normed)
        return constrain(x, ACTIVATION_AXES), cache


class Llama(nn.Module):
    """The whole model up to its last norm; `head_weight` gives the matrix that makes logits."""

    config: LlamaConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Final states, and the cache with these tokens added when one is given.

        Args:
          tokens: ids in [0, V).
          segment_ids: conversation of each token, 0 for padding.
          positions: position within the conversation; with a cache also the slot to write.
          cache: what earlier calls saw of the same rows, or None.
        """
        x = embed(self, tokens, self.config, dtype=self.compute.dtype)
        where = locate(tokens, segment_ids, positions, cache)
        where = where._replace(rotary=rotary(self.config, positions))
        x, cache = run_layers(Layer, self.config, self.compute, x, where, cache)
        return RmsNorm(self.config.norm_eps, name="final_norm")(x), cache


def rotary(config: LlamaConfig, positions: Int[Array, "B T"]) -> Rotary:
    """The angles of every position, with the config's scaling of the rates."""
    rates = rotary_rates(config.head_dim, config.rope_theta)
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "linear":
        rates = stretch_linear(rates, factor=scaling.factor)
    elif scaling is not None:
        rates = stretch_llama3(
            rates,
            factor=scaling.factor,
            low_freq_factor=scaling.low_freq_factor,
            high_freq_factor=scaling.high_freq_factor,
            original_length=scaling.original_length,
        )
    return Rotary(*rotary_angles(positions, rates))
