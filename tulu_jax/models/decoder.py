"""The base of the families' modules: tokens in, final states out, with the layers between."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.layers import (
    AttentionContext,
    Cache,
    LayerCache,
    RmsNorm,
    Rotary,
    embed,
    run_cached_layers,
    run_layers,
)


class Decoder(nn.Module):
    """The whole model up to its last norm; `head_weight` gives the matrix that makes logits.

    A family names its `layer` and `norm` and overrides what it does otherwise.
    """

    config: Any
    """The family's config."""
    compute: ComputeConfig = ComputeConfig()

    layer: ClassVar[type[nn.Module]]
    """One layer, in the form that `run_layers` takes."""
    norm: ClassVar[Any] = RmsNorm
    """The last norm."""

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T _"], list[LayerCache] | None]:
        """Final states, and every layer's cache with these tokens added where one is given.

        Args:
          tokens: ids in [0, V).
          segment_ids: conversation of each token, 0 for padding.
          positions: position within the conversation.
          cache: what earlier calls saw of the same rows, the tokens' place in it, and the layers'
            weights, which are not looked for among the module's then; or None.
        """
        x = self.begin(tokens, positions)
        context = AttentionContext(segment_ids, self.rotary(positions))
        if cache is None:
            x = run_layers(self.layer, self.config, self.compute, x, context)
            return self.finish(x), None
        context = context._replace(place=cache.place)
        x, layers = run_cached_layers(self.layer, self.config, x, context, cache)
        return self.finish(x), layers

    def begin(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """The input of the first layer: rows of the embedding."""
        del positions
        return embed(self, tokens, self.config, dtype=self.compute.dtype)

    def rotary(self, positions: Int[Array, "B T"]) -> Rotary | None:
        """The angles of every position; None where positions are not rotary."""
        del positions

    def finish(self, x: Float[Array, "B T D"]) -> Float[Array, "B T _"]:
        """The final states, of what the last layer gives."""
        return self.norm(self.config.norm_eps, name="final_norm")(x)
