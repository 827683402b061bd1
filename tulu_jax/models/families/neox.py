"""GPT-NeoX and Pythia in Flax linen: partial rotary positions, layer norm, GELU, biases.

Source: Black et al. 2022, arXiv 2204.06745; Biderman et al. 2023, arXiv 2304.01373; transformers
`modeling_gpt_neox.py`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from tulu_jax.errors import ConfigError
from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.decoder import Decoder
from tulu_jax.models.family import EvenHeads, check_heads_divide, check_sizes, register
from tulu_jax.models.layers import (
    ACTIVATION_AXES,
    Attention,
    AttentionContext,
    LayerCache,
    LayerNorm,
    Mlp,
    Rotary,
)
from tulu_jax.models.remat import tag
from tulu_jax.models.weight import constrain
from tulu_jax.ops import rotary_angles, rotary_rates

gelu = partial(jax.nn.gelu, approximate=False)
"""The exact form with the error function, as transformers' `gelu`."""


@register
@dataclasses.dataclass(frozen=True)
class NeoxConfig(EvenHeads):
    """A GPT-NeoX or Pythia: partial rotary positions, GELU, LayerNorm, biases.

    Raises:
      ConfigError: a size is not positive, heads do not divide the width, or an odd number of a
        head's channels would turn.
    """

    family: ClassVar[str] = "neox"
    linear_names: ClassVar = {
        "query_key_value": ("query", "key", "value"),
        "dense": ("out",),
        "dense_h_to_4h": ("up",),
        "dense_4h_to_h": ("down",),
    }
    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    max_length: int
    norm_eps: float
    """Added to the variance in every norm."""
    rotary_share: float
    """Share of each head's channels that turn with the position, from the first on."""
    rope_theta: float = 10_000.0
    parallel_residual: bool = True
    """Whether attention and feed-forward both read the layer's input; else one after the other."""
    attention_bias: bool = True
    tie_embeddings: bool = False
    bos_id: int | None = 0
    eos_id: int = 0
    pad_id: int | None = None

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        check_sizes(self, "norm_eps", "rope_theta")
        check_heads_divide(self)
        if not 0 < self.rotary_share <= 1 or self.rotary_dim % 2 or not self.rotary_dim:
            raise ConfigError(
                "rotary positions need pairs of channels",
                got=f"rotary_share={self.rotary_share} of head_dim={self.head_dim}",
                expected="an even number of channels, at least 2",
            )

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that turn with the position."""
        return int(self.head_dim * self.rotary_share)

    def decoder(self, compute: ComputeConfig) -> Decoder:
        """The Flax module."""
        return Neox(self, compute)


class NeoxLayer(nn.Module):
    """One decoder layer, in the form that `run_layers` takes."""

    config: NeoxConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache | None, context: AttentionContext
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The layer's input with attention and feed-forward added, side by side or in turn."""
        c = self.config
        x = tag(x, "layer_input")
        attention = Attention(
            c.num_heads, c.num_kv_heads, c.head_dim, c.attention_bias, name="attention"
        )
        mlp = Mlp(c.d_ff, gelu, name="mlp")
        mixed, cache = attention(LayerNorm(c.norm_eps, name="attention_norm")(x), context, cache)
        after = constrain(x + mixed, ACTIVATION_AXES)
        read = x if c.parallel_residual else after
        x = after + mlp(LayerNorm(c.norm_eps, name="mlp_norm")(read))
        return constrain(x, ACTIVATION_AXES), cache


class Neox(Decoder):
    """The whole model up to its last norm."""

    config: NeoxConfig
    layer: ClassVar = NeoxLayer
    norm: ClassVar = LayerNorm

    def rotary(self, positions: Int[Array, "B T"]) -> Rotary:
        """The angles of every position."""
        return rotary(self.config, positions)


def rotary(config: NeoxConfig, positions: Int[Array, "B T"]) -> Rotary:
    """The angles of every position, for the channels that turn."""
    return Rotary(*rotary_angles(positions, rotary_rates(config.rotary_dim, config.rope_theta)))
