"""LLaMA in Flax linen: norm, rotary grouped-query attention, gated feed-forward, scanned layers.

Every weight names its logical axes where its shape is given; `tulu_jax.parallel` maps the names to
mesh axes. Source: Touvron et al. 2023, arXiv 2302.13971; transformers `modeling_llama.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import spmd
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig, LlamaConfig
from tulu_jax.ops import apply_rotary, attend, linear, rms_norm, rotary_angles

INIT_STDDEV = 0.02
ACTIVATION_AXES = ("batch", "length", "activation_embed")

LayerCache = dict[str, Any]
"""Keys and values of one layer: `key`, `value` [B, S, K, H]."""


class Where(NamedTuple):
    """Where each query stands: its rotary angles, conversation and slot, and the keys' segments."""

    cos: Float[Array, "B T half"]
    sin: Float[Array, "B T half"]
    segments: Int[Array, "B T"]
    key_segments: Int[Array, "B S"]
    slots: Int[Array, "B T"]


class Cache(NamedTuple):
    """Keys and values of all layers for generation: one conversation a row, from slot 0 on."""

    layers: LayerCache
    """`key` and `value`, [L, B, S, K, H]."""
    segments: Int[Array, "B S"]
    """1 where a slot is written, 0 elsewhere."""


def _constrain(x: Any, axes: tuple[str, ...]) -> Array:
    """`x` laid over the mesh as the rules in force say for its logical axes."""
    return spmd.with_logical_constraint(x, axes)


def _weight(module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> Any:
    init = nn.with_logical_partitioning(nn.initializers.normal(INIT_STDDEV), axes)
    return module.param(name, init, shape, jnp.float32)


class Norm(nn.Module):
    """RMS norm with a learned scale [D]."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The normed activations."""
        init = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        scale: Any = self.param("scale", init, (self.config.d_model,), jnp.float32)
        return rms_norm(x, scale, eps=self.config.norm_eps)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions, within conversations only."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], where: Where, cache: LayerCache | None
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The mixed activations and, when decoding, the cache with this call's keys and values."""
        c = self.config
        d, n, k, h = c.d_model, c.num_heads, c.num_kv_heads, c.head_dim
        w_query = _weight(self, "query", (d, n, h), ("embed", "heads", "head_dim"))
        w_key = _weight(self, "key", (d, k, h), ("embed", "kv_heads", "head_dim"))
        w_value = _weight(self, "value", (d, k, h), ("embed", "kv_heads", "head_dim"))
        w_out = _weight(self, "out", (n, h, d), ("heads", "head_dim", "embed"))
        query = _project(x, w_query, "heads")
        key = _project(x, w_key, "kv_heads")
        value = _project(x, w_value, "kv_heads")
        query = apply_rotary(query, where.cos, where.sin)
        key = apply_rotary(key, where.cos, where.sin)
        if cache is not None:
            cache = {
                "key": _write(cache["key"], key, where.slots),
                "value": _write(cache["value"], value, where.slots),
            }
            key, value = cache["key"].astype(x.dtype), cache["value"].astype(x.dtype)
        mixed = attend(query, key, value, where.segments, where.key_segments, where.slots)
        mixed = mixed.reshape(*x.shape[:2], n * h)
        return linear(mixed, w_out.reshape(n * h, d)), cache


def _project(x: Float[Array, "B T D"], weight: Array, heads: str) -> Float[Array, "B T heads H"]:
    out = linear(x, weight).reshape(*x.shape[:2], *weight.shape[1:])
    return _constrain(out, ("batch", "length", heads, "head_dim"))


def _write(
    cached: Float[Array, "B S K H"], new: Float[Array, "B T K H"], slots: Int[Array, "B T"]
) -> Float[Array, "B S K H"]:
    """The cache with each row's new entries in their slots; slots past the end are dropped."""
    rows = jnp.arange(cached.shape[0])[:, None]
    return cached.at[rows, slots].set(new.astype(cached.dtype), mode="drop")


class FeedForward(nn.Module):
    """Gated feed-forward (SwiGLU): down(silu(gate(x)) * up(x))."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The transformed activations."""
        d, f = self.config.d_model, self.config.d_ff
        gate = _weight(self, "gate", (d, f), ("embed", "mlp"))
        up = _weight(self, "up", (d, f), ("embed", "mlp"))
        down = _weight(self, "down", (f, d), ("mlp", "embed"))
        hidden = jax.nn.silu(linear(x, gate)) * linear(x, up)
        hidden = _constrain(hidden, ("batch", "length", "mlp"))
        return linear(hidden, down)


class Layer(nn.Module):
    """One decoder layer, in the form that `nn.scan` runs."""

    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache | None, where: Where
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The activations after attention and feed-forward, each added to its input."""
        normed = Norm(self.config, name="attention_norm")(x)
        mixed, cache = Attention(self.config, name="attention")(normed, where, cache)
        x = _constrain(x + mixed, ACTIVATION_AXES)
        normed = Norm(self.config, name="mlp_norm")(x)
        x = x + FeedForward(self.config, name="mlp")(normed)
        return _constrain(x, ACTIVATION_AXES), cache


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
        c = self.config
        embedding = _weight(self, "embedding", (c.vocab_size, c.d_model), ("vocab", "embed"))
        if not c.tie_embeddings:
            _weight(self, "lm_head", (c.d_model, c.vocab_size), ("embed", "vocab"))
        # Rows of the table are looked up whole: without this the partitioner copies the batch.
        table = _constrain(embedding, ("vocab", "activation_embed"))
        x = jnp.take(table, tokens, axis=0).astype(self.compute.dtype)
        x = _constrain(x, ACTIVATION_AXES)
        slots = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        key_segments = segment_ids
        if cache is not None:
            rows, slots = jnp.arange(tokens.shape[0])[:, None], positions
            key_segments = cache.segments.at[rows, slots].set(segment_ids, mode="drop")
        cos, sin = rotary_angles(positions, head_dim=c.head_dim, theta=c.rope_theta)
        where = Where(cos, sin, segment_ids, key_segments, slots)
        layers = self._scanned_layers()(c, name="layers")
        x, layer_caches = layers(x, cache.layers if cache else None, where)
        x = Norm(c, name="final_norm")(x)
        return x, Cache(layer_caches, key_segments) if cache else None

    def _scanned_layers(self) -> type[nn.Module]:
        layer = Layer
        if self.compute.remat == "full":
            layer = nn.remat(Layer, prevent_cse=False)
        return nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
            length=self.config.num_layers,
            unroll=self.compute.unroll_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )


def head_weight(config: LlamaConfig, params: dict[str, Any]) -> Float[Array, "D V"]:
    """The output head: `lm_head`, or the transposed embedding when they are tied."""
    head = params["embedding"].T if config.tie_embeddings else params["lm_head"]
    return jnp.asarray(head)


def init_cache(config: LlamaConfig, batch: int, length: int, dtype: Any = jnp.float32) -> Cache:
    """An empty cache for `batch` rows of up to `length` tokens."""
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
    layers = {"key": jnp.zeros(shape, dtype), "value": jnp.zeros(shape, dtype)}
    return Cache(layers, jnp.zeros((batch, length), jnp.int32))
