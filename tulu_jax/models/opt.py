"""OPT in Flax linen: learned positions, layer norm before or after, ReLU, biases.

Source: Zhang et al. 2022, arXiv 2205.01068; transformers `modeling_opt.py`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.families import OptConfig
from tulu_jax.models.layers import (
    ACTIVATION_AXES,
    Attention,
    Cache,
    LayerCache,
    LayerNorm,
    Mlp,
    Where,
    constrain,
    embed,
    locate,
    run_layers,
    weight,
)
from tulu_jax.models.remat import tag
from tulu_jax.ops import linear


class Layer(nn.Module):
    """One decoder layer, in the form that `run_layers` takes."""

    config: OptConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache | None, where: Where
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The activations after attention and feed-forward, each added to its input."""
        c = self.config
        x = tag(x, "layer_input")
        attention_norm = LayerNorm(c.norm_eps, name="attention_norm")
        mlp_norm = LayerNorm(c.norm_eps, name="mlp_norm")
        attention = Attention(c.num_heads, c.num_kv_heads, c.head_dim, c.use_bias, name="attention")
        mlp = Mlp(c.d_ff, jax.nn.relu, c.use_bias, name="mlp")
        if c.norm_first:
            mixed, cache = attention(attention_norm(x), where, cache)
            x = constrain(x + mixed, ACTIVATION_AXES)
            x = x + mlp(mlp_norm(x))
        else:
            mixed, cache = attention(x, where, cache)
            x = constrain(attention_norm(x + mixed), ACTIVATION_AXES)
            x = mlp_norm(x + mlp(x))
        return constrain(x, ACTIVATION_AXES), cache


class Opt(nn.Module):
    """The whole model up to what its head multiplies."""

    config: OptConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T _"], Cache | None]:
        """Final states, and the cache with these tokens added; arguments as of `Llama`."""
        c = self.config
        axis = "word_embed" if c.projects else "embed"
        x = embed(self, tokens, c, dtype=self.compute.dtype, axis=axis)
        if c.projects:
            x = linear(x, weight(self, "project_in", (c.word_dim, c.d_model), (axis, "embed")))
        x = constrain(x + self._positions(positions), ACTIVATION_AXES)
        where = locate(tokens, segment_ids, positions, cache)
        x, cache = run_layers(Layer, c, self.compute, x, where, cache)
        if c.final_norm:
            x = LayerNorm(c.norm_eps, name="final_norm")(x)
        if c.projects:
            x = linear(x, weight(self, "project_out", (c.d_model, c.word_dim), ("embed", axis)))
        return x, cache

    def _positions(self, positions: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """The learned vector of each position.

        The table has two rows that no position uses: position 0 is row 2. Positions past the end,
        which only padding and finished rows have, take the last.
        """
        c = self.config
        shape = (c.max_length + c.position_offset, c.d_model)
        table = weight(self, "position_embedding", shape, ("positions", "embed"))
        table = constrain(table, ("positions", "activation_embed"))
        rows = positions + c.position_offset
        return jnp.take(table, rows, axis=0, mode="clip").astype(self.compute.dtype)
