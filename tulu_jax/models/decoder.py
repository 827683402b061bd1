"""The base of the families' modules: tokens in, final states out, with the layers between."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig
from tulu_jax.models.layers import Cache, RmsNorm, Rotary, embed, locate, run_layers


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
    ) -> tuple[Float[Array, "B T _"], Cache | None]:
        """Final states, and the cache with these tokens added when one is given.

        Args:
          tokens: ids in [0, V).
          segment_ids: conversation of each token, 0 for padding.
          positions: position within the conversation; with a cache also the slot to write.
          cache: what earlier calls saw of the same rows, or None.
        """
        x = self.begin(tokens, positions)
        context = locate(tokens, segment_ids, positions, cache)
        context = context._replace(rotary=self.rotary(positions))
        x, cache = run_layers(self.layer, self.config, self.compute, x, context, cache)
        return self.finish(x), cache

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
