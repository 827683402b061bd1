"""LLaMA in Flax linen: RMS norm, rotary grouped-query attention, gated feed-forward.

Source: Touvron et al. 2023, arXiv 2302.13971; transformers `modeling_llama.py`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float, Int

from tulu_jax.errors import ConfigError
from tulu_jax.fields import check_fields, least, one_of, setting
from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.decoder import Decoder
from tulu_jax.models.family import ModelConfig, check_sizes, register
from tulu_jax.models.layers import (
    ACTIVATION_AXES,
    Attention,
    AttentionContext,
    GatedMlp,
    LayerCache,
    RmsNorm,
    Rotary,
)
from tulu_jax.models.remat import tag
from tulu_jax.models.weight import constrain
from tulu_jax.ops import rotary_angles, rotary_rates, stretch_linear, stretch_llama3


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Rotary rates changed to reach further than the length they were first trained for.

    Raises:
      ConfigError: an unknown kind, or a factor or length that is out of range.
    """

    kind: str = setting(
        check=one_of("linear", "llama3"), help="'linear' divides every rate by `factor`; 'llama3' "
        "only the slow ones, smoothly between",
    )  # fmt: skip
    factor: float = setting(check=least(1))
    low_freq_factor: float = setting(
        1.0, help="llama3: rates of fewer turns in `original_length` are divided by `factor`"
    )
    high_freq_factor: float = setting(
        4.0, help="llama3: rates of more turns in `original_length` stay as they are"
    )
    original_length: int = setting(
        8192, least(1), help="llama3: longest sequence of the first training, in tokens"
    )

    def __post_init__(self) -> None:
        """Checks kind and ranges."""
        check_fields(self)
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                "RopeScaling's frequency factors are out of order",
                got=f"low_freq_factor={self.low_freq_factor}, "
                f"high_freq_factor={self.high_freq_factor}",
                expected="0 < low_freq_factor < high_freq_factor",
            )


@register
@dataclasses.dataclass(frozen=True)
class LlamaConfig(ModelConfig):
    """A LLaMA 1, 2 or 3, a TinyLlama, or a Mistral within its sliding window.

    Raises:
      ConfigError: a size is not positive, heads do not divide, or the head width is odd.
    """

    family: ClassVar[str] = "llama"
    linear_names: ClassVar = {
        "q_proj": ("query",),
        "k_proj": ("key",),
        "v_proj": ("value",),
        "o_proj": ("out",),
        "gate_proj": ("gate",),
        "up_proj": ("up",),
        "down_proj": ("down",),
    }
    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_length: int
    norm_eps: float
    """Added to the mean square in every norm: 1e-6 for LLaMA 1, 1e-5 for its 65B and LLaMA 2."""
    rope_theta: float = 10_000.0
    tie_embeddings: bool = False
    bos_id: int | None = 1
    eos_id: int = 2
    pad_id: int | None = None
    rope_scaling: RopeScaling | None = None
    extra_eos_ids: tuple[int, ...] = ()
    """Tokens besides `eos_id` that end a text when generating, as LLaMA 3's <|eot_id|>."""

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        check_sizes(self, "num_kv_heads", "head_dim", "norm_eps", "rope_theta")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                "query heads cannot share key/value heads evenly",
                got=f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}",
                expected="num_kv_heads to divide num_heads",
            )
        if self.head_dim % 2:
            raise ConfigError(
                "rotary positions need pairs of channels",
                got=f"head_dim={self.head_dim}",
                expected="an even head_dim",
            )
        if not isinstance(self.extra_eos_ids, tuple):
            object.__setattr__(self, "extra_eos_ids", tuple(self.extra_eos_ids))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a text when generating."""
        return (self.eos_id, *self.extra_eos_ids)

    def decoder(self, compute: ComputeConfig) -> Decoder:
        """The Flax module."""
        return Llama(self, compute)


class LlamaLayer(nn.Module):
    """One decoder layer, in the form that `run_layers` takes."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache | None, context: AttentionContext
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The activations after attention and feed-forward, each added to its input."""
        c = self.config
        x = tag(x, "layer_input")
        normed = RmsNorm(c.norm_eps, name="attention_norm")(x)
        attention = Attention(c.num_heads, c.num_kv_heads, c.head_dim, name="attention")
        mixed, cache = attention(normed, context, cache)
        x = constrain(x + mixed, ACTIVATION_AXES)
        normed = RmsNorm(c.norm_eps, name="mlp_norm")(x)
        x = x + GatedMlp(c.d_ff, name="mlp")(normed)
        return constrain(x, ACTIVATION_AXES), cache


class Llama(Decoder):
    """The whole model up to its last norm."""

    config: LlamaConfig
    layer: ClassVar = LlamaLayer

    def rotary(self, positions: Int[Array, "B T"]) -> Rotary:
        """The angles of every position."""
        return rotary(self.config, positions)


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
