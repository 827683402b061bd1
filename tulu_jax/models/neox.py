"""GPT-NeoX and Pythia in Flax linen: partial rotary positions, layer norm, GELU, biases.

Source: Black et al. 2022, arXiv 2204.06745; Biderman et al. 2023, arXiv 2304.01373; transformers
`modeling_gpt_neox.py`.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.families import NeoxConfig
from tulu_jax.models.layers import (
    ACTIVATION_AXES,
    Attention,
    Cache,
    LayerCache,
    LayerNorm,
    Mlp,
    Rotary,
    Where,
    constrain,
    embed,
    locate,
    run_layers,
)
from tulu_jax.models.remat import tag
from tulu_jax.ops import rotary_angles, rotary_rates

gelu = partial(jax.nn.gelu, approximate=False)
"""The exact form with the error function, as transformers' `gelu`."""


class Layer(nn.Module):
    """One decoder layer, in the form that `run_layers` takes."""

    config: NeoxConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache | None, where: Where
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The layer's input with attention and feed-forward added, side by side or in turn."""
        c = self.config
        x = tag(x, "layer_input")
        attention = Attention(
            c.num_heads, c.num_kv_heads, c.head_dim, c.attention_bias, name="attention"
        )
        mlp = Mlp(c.d_ff, gelu, name="mlp")
        mixed, cache = attention(LayerNorm(c.norm_eps, name="attention_norm")(x), where, cache)
        after = constrain(x + mixed, ACTIVATION_AXES)
        read = x if c.parallel_residual else after
        x = after + mlp(LayerNorm(c.norm_eps, name="mlp_norm")(read))
        return constrain(x, ACTIVATION_AXES), cache


class Neox(nn.Module):
    """The whole model up to its last norm; `head_weight` gives the matrix that makes logits."""

    config: NeoxConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Final states, and the cache with these tokens added; arguments as of `Llama`."""
        x = embed(self, tokens, self.config, dtype=self.compute.dtype)
        where = locate(tokens, segment_ids, positions, cache)
        where = where._replace(rotary=rotary(self.config, positions))
        x, cache = run_layers(Layer, self.config, self.compute, x, where, cache)
        return LayerNorm(self.config.norm_eps, name="final_norm")(x), cache


def rotary(config: NeoxConfig, positions: Int[Array, "B T"]) -> Rotary:
    """The angles of every position, for the channels that turn."""
    return Rotary(*rotary_angles(positions, rotary_rates(config.rotary_dim, config.rope_theta)))
