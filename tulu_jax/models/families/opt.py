"""OPT in Flax linen: learned positions, layer norm before or after, ReLU, biases.

Source: Zhang et al. 2022, arXiv 2205.01068; transformers `modeling_opt.py`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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
    embed,
)
from tulu_jax.models.remat import tag
from tulu_jax.models.weight import constrain, matrix, table
from tulu_jax.ops import linear


@register
@dataclasses.dataclass(frozen=True)
class OptConfig(EvenHeads):
    """An OPT: learned positions, ReLU, LayerNorm, biases.

    Raises:
      ConfigError: a size is not positive, or heads do not divide the width.
    """

    family: ClassVar[str] = "opt"
    linear_names: ClassVar = {
        "q_proj": ("query",),
        "k_proj": ("key",),
        "v_proj": ("value",),
        "out_proj": ("out",),
        "fc1": ("up",),
        "fc2": ("down",),
    }
    norm_eps: ClassVar[float] = 1e-5
    """Added to the variance in every norm: fixed for the family, its config.json has no such
    field."""
    learned_positions: ClassVar[bool] = True
    position_offset: ClassVar[int] = 2
    """Rows of the position table before that of position 0; never used, but stored."""
    vocab_size: int
    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    max_length: int
    word_dim: int
    """Channels of the embedding: d_model but for OPT-350M, which projects in and out."""
    norm_first: bool = True
    """Whether norms come before attention and feed-forward; in OPT-350M they come after."""
    final_norm: bool = True
    """Whether there is a norm after the last layer."""
    use_bias: bool = True
    tie_embeddings: bool = True
    bos_id: int | None = 2
    eos_id: int = 2
    pad_id: int | None = 1

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        check_sizes(self, "word_dim")
        check_heads_divide(self)

    @property
    def embedding_width(self) -> int:
        """Channels of a row of the embedding and of what the output head multiplies."""
        return self.word_dim

    @property
    def projects(self) -> bool:
        """Whether matrices lead from the embedding's width to the model's and back."""
        return self.word_dim != self.d_model

    @property
    def layer_parts(self) -> tuple[str, ...]:
        """The parts of a layer in the order they run."""
        if self.norm_first:
            return super().layer_parts
        return ("attention", "attention_norm", "mlp", "mlp_norm")

    def decoder(self, compute: ComputeConfig) -> Decoder:
        """The Flax module."""
        return Opt(self, compute)


class OptLayer(nn.Module):
    """One decoder layer, in the form that `run_layers` takes."""

    config: OptConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache | None, context: AttentionContext
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The activations after attention and feed-forward, each added to its input."""
        c = self.config
        x = tag(x, "layer_input")
        attention_norm = LayerNorm(c.norm_eps, name="attention_norm")
        mlp_norm = LayerNorm(c.norm_eps, name="mlp_norm")
        attention = Attention(c.num_heads, c.num_kv_heads, c.head_dim, c.use_bias, name="attention")
        mlp = Mlp(c.d_ff, jax.nn.relu, c.use_bias, name="mlp")
        if c.norm_first:
            mixed, cache = attention(attention_norm(x), context, cache)
            x = constrain(x + mixed, ACTIVATION_AXES)
            x = x + mlp(mlp_norm(x))
        else:
            mixed, cache = attention(x, context, cache)
            x = constrain(attention_norm(x + mixed), ACTIVATION_AXES)
            x = mlp_norm(x + mlp(x))
        return constrain(x, ACTIVATION_AXES), cache


class Opt(Decoder):
    """The whole model up to what its head multiplies."""

    config: OptConfig
    layer: ClassVar = OptLayer

    def begin(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Rows of the embedding, projected where it has another width, and learned positions."""
        c = self.config
        axis = "word_embed" if c.projects else "embed"
        x = embed(self, tokens, c, dtype=self.compute.dtype, axis=axis)
        if c.projects:
            x = linear(x, matrix(self, "project_in", (c.word_dim, c.d_model), (axis, "embed")))
        return constrain(x + self._positions(positions), ACTIVATION_AXES)

    def finish(self, x: Float[Array, "B T D"]) -> Float[Array, "B T _"]:
        """The final states, projected back where the embedding has another width."""
        c = self.config
        if c.final_norm:
            x = LayerNorm(c.norm_eps, name="final_norm")(x)
        if c.projects:
            shape = (c.d_model, c.word_dim)
            x = linear(x, matrix(self, "project_out", shape, ("embed", "word_embed")))
        return x

    def _positions(self, positions: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """The learned vector of each position.

        The table has two rows that no position uses: position 0 is row 2. Positions past the end,
        which only padding and finished rows have, take the last.
        """
        c = self.config
        shape = (c.max_length + c.position_offset, c.d_model)
        rows = table(self, "position_embedding", shape, ("positions", "embed"))
        rows = constrain(rows, ("positions", "activation_embed"))
        slots = positions + c.position_offset
        return jnp.take(rows, slots, axis=0, mode="clip").astype(self.compute.dtype)
