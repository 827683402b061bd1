"""Parts that the families share: norms, attention with its cache, feed-forward, scanned layers.

Every weight names its logical axes where its shape is given; `tulu_jax.parallel` maps the names to
mesh axes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tulu_jax.models.config import ComputeConfig, attention_kernel, check_offload
from tulu_jax.models.family import ModelConfig
from tulu_jax.models.remat import policy, tag
from tulu_jax.models.weight import constrain, matrix, table, vector
from tulu_jax.ops import apply_rotary, attend, layer_norm, linear, rms_norm, silu_gate

ACTIVATION_AXES = ("batch", "activation_length", "activation_embed")
"""Axes of what goes from block to block."""
BLOCK_AXES = ("batch", "length", "activation_embed")
"""Axes of what a block begins with: gathered once, not by each of its matrices."""

LayerCache = dict[str, Any]
"""Keys and values of one layer: `key`, `value` [B, S, K, H]."""


class Rotary(NamedTuple):
    """The angles that each query and key turns by."""

    cos: Float[Array, "B T half"]
    sin: Float[Array, "B T half"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Kernel:
    """The attention kernel of training rows, by name; passes through traces as no array at all."""

    name: str = "blockwise"


class AttentionContext(NamedTuple):
    """Each query's conversation, slot and angles, and the keys' segments: all attention knows."""

    segments: Int[Array, "B T"]
    key_segments: Int[Array, "B S"]
    slots: Int[Array, "B T"]
    rotary: Rotary | None = None
    """None where positions are not rotary."""
    kernel: Kernel = Kernel()


class Cache(NamedTuple):
    """Keys and values of all layers for generation: one conversation a row, from slot 0 on."""

    layers: LayerCache
    """`key` and `value`, [L, B, S, K, H]."""
    segments: Int[Array, "B S"]
    """1 where a slot is written, 0 elsewhere."""


def init_cache(config: ModelConfig, batch: int, length: int, dtype: Any = jnp.float32) -> Cache:
    """An empty cache for `batch` rows of up to `length` tokens."""
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
    layers = {"key": jnp.zeros(shape, dtype), "value": jnp.zeros(shape, dtype)}
    return Cache(layers, jnp.zeros((batch, length), jnp.int32))


def locate(
    tokens: Int[Array, "B T"],
    segment_ids: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    cache: Cache | None,
) -> AttentionContext:
    """The context of tokens, without angles: they stand in the row, or in the cache's slots.

    Args:
      tokens: only their shape is looked at.
      segment_ids: conversation of each token, 0 for padding.
      positions: position within the conversation; with a cache also the slot to write.
      cache: what earlier calls saw of the same rows, or None.
    """
    if cache is None:
        slots = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        return AttentionContext(segment_ids, segment_ids, slots)
    rows = jnp.arange(tokens.shape[0])[:, None]
    written = cache.segments.at[rows, positions].set(segment_ids, mode="drop")
    return AttentionContext(segment_ids, written, positions)


class RmsNorm(nn.Module):
    """RMS norm with a learned scale [D]."""

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The normed activations."""
        scale = vector(self, "scale", x.shape[-1:], ("embed",), nn.initializers.ones)
        return rms_norm(x, scale, eps=self.eps)


class LayerNorm(nn.Module):
    """Layer norm with a learned scale and bias [D]."""

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The normed activations."""
        scale = vector(self, "scale", x.shape[-1:], ("embed",), nn.initializers.ones)
        bias = vector(self, "bias", x.shape[-1:], ("embed",))
        return layer_norm(x, scale, bias, eps=self.eps)


class Attention(nn.Module):
    """Grouped-query self-attention, within conversations only; rotary where there are angles."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], context: AttentionContext, cache: LayerCache | None
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The mixed activations and, when decoding, the cache with this call's keys and values."""
        x = constrain(x, BLOCK_AXES)
        query = self._project(x, "query", self.num_heads, "heads")
        key = self._project(x, "key", self.num_kv_heads, "kv_heads")
        value = self._project(x, "value", self.num_kv_heads, "kv_heads")
        if context.rotary is not None:
            query = apply_rotary(query, *context.rotary)
            key = apply_rotary(key, *context.rotary)
        query, key, value = tag(query, "query"), tag(key, "key"), tag(value, "value")
        if cache is None:
            mixed = attend(
                query, key, value, context.segments, context.segments, kernel=context.kernel.name
            )
        else:
            cache = {
                "key": _write(cache["key"], key, context.slots),
                "value": _write(cache["value"], value, context.slots),
            }
            key, value = cache["key"].astype(x.dtype), cache["value"].astype(x.dtype)
            mixed = attend(query, key, value, context.segments, context.key_segments, context.slots)
        joined = self._join(tag(mixed, "attention_out"), x.shape[-1])
        return tag(joined, "attention_joined"), cache

    def _project(
        self, x: Float[Array, "B T D"], name: str, count: int, axis: str
    ) -> Float[Array, "B T heads H"]:
        shape = (x.shape[-1], count, self.head_dim)
        projection = matrix(self, name, shape, ("embed", axis, "head_dim"))
        out = linear(x, projection).reshape(*x.shape[:2], count, self.head_dim)
        if self.use_bias:
            bias = vector(self, f"{name}_bias", shape[1:], (axis, "head_dim"))
            out = out + bias.astype(out.dtype)
        return constrain(out, ("batch", "length", axis, "head_dim"))

    def _join(self, mixed: Float[Array, "B T N H"], width: int) -> Float[Array, "B T D"]:
        shape = (self.num_heads, self.head_dim, width)
        projection = matrix(self, "out", shape, ("heads", "head_dim", "embed"), inputs=2)
        out = linear(mixed.reshape(*mixed.shape[:2], -1), projection.reshape(-1, width))
        if self.use_bias:
            out = out + vector(self, "out_bias", (width,), ("embed",)).astype(out.dtype)
        return out


def _write(
    cached: Float[Array, "B S K H"], new: Float[Array, "B T K H"], slots: Int[Array, "B T"]
) -> Float[Array, "B S K H"]:
    """The cache with each row's new entries in their slots; slots past the end are dropped."""
    rows = jnp.arange(cached.shape[0])[:, None]
    return cached.at[rows, slots].set(new.astype(cached.dtype), mode="drop")


class GatedMlp(nn.Module):
    """Gated feed-forward (SwiGLU): down(silu(gate(x)) * up(x))."""

    d_ff: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The transformed activations."""
        x = constrain(x, BLOCK_AXES)
        d, f = x.shape[-1], self.d_ff
        gate = matrix(self, "gate", (d, f), ("embed", "mlp"))
        up = matrix(self, "up", (d, f), ("embed", "mlp"))
        down = matrix(self, "down", (f, d), ("mlp", "embed"))
        gated, raised = tag(linear(x, gate), "mlp_gate"), tag(linear(x, up), "mlp_up")
        hidden = constrain(silu_gate(gated, raised), ("batch", "length", "mlp"))
        return linear(tag(hidden, "mlp_hidden"), down)


class Mlp(nn.Module):
    """Feed-forward of two matrices: down(activation(up(x)))."""

    d_ff: int
    activation: Callable[[Array], Array]
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The transformed activations."""
        x = constrain(x, BLOCK_AXES)
        d, f = x.shape[-1], self.d_ff
        hidden = linear(x, matrix(self, "up", (d, f), ("embed", "mlp")))
        if self.use_bias:
            hidden = hidden + vector(self, "up_bias", (f,), ("mlp",)).astype(x.dtype)
        hidden = self.activation(tag(hidden, "mlp_up"))
        hidden = tag(constrain(hidden, ("batch", "length", "mlp")), "mlp_hidden")
        out = linear(hidden, matrix(self, "down", (f, d), ("mlp", "embed")))
        if self.use_bias:
            out = out + vector(self, "down_bias", (d,), ("embed",)).astype(x.dtype)
        return out


def embed(
    module: nn.Module,
    tokens: Int[Array, "B T"],
    config: ModelConfig,
    *,
    dtype: str,
    axis: str = "embed",
) -> Float[Array, "B T D"]:
    """Rows of the embedding for `tokens`; also declares the output head when it is not tied."""
    shape = (config.vocab_size, config.embedding_width)
    embedding = table(module, "embedding", shape, ("vocab", axis))
    if not config.tie_embeddings:
        matrix(module, "lm_head", shape[::-1], (axis, "vocab"))
    return constrain(_rows(embedding, tokens, jnp.dtype(dtype)), ACTIVATION_AXES)


TABLE_AXES = ("vocab", "activation_embed")
"""Rows of the table are looked up whole: with them split the partitioner copies the batch."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rows(
    embedding: Float[Array, "V E"], tokens: Int[Array, "B T"], dtype: Any
) -> Float[Array, "B T E"]:
    """Rows in `dtype`, cast before they are gathered from the devices: half the bytes.

    Yet the gradient is summed in the dtype of the embedding, as that of a frequent token must be.
    """
    return jnp.take(constrain(embedding.astype(dtype), TABLE_AXES), tokens, axis=0)


def _rows_forward(embedding: Array, tokens: Array, dtype: Any) -> tuple[Array, tuple[Array, Array]]:
    return _rows(embedding, tokens, dtype), (embedding, tokens)


def _rows_backward(dtype: Any, saved: tuple[Array, Array], upstream: Array) -> tuple[Array, None]:
    embedding, tokens = saved
    zeros = jnp.zeros_like(embedding)
    grad = zeros.at[tokens].add(upstream.astype(embedding.dtype), mode="drop")
    return constrain(grad, TABLE_AXES), None


_rows.defvjp(_rows_forward, _rows_backward)


def run_layers(
    layer: type[nn.Module],
    config: ModelConfig,
    compute: ComputeConfig,
    x: Float[Array, "B T D"],
    context: AttentionContext,
    cache: Cache | None,
) -> tuple[Float[Array, "B T D"], Cache | None]:
    """The activations after all layers, which share one trace; call it in a compact method.

    `layer(config)` takes activations, the layer's cache and `context`, and returns the first two.
    """
    kernel = attention_kernel(compute).name
    context = context._replace(kernel=Kernel(kernel))
    check_offload(compute)
    recompute = policy(compute.remat, compute.offload_activations, kernel)
    if recompute is not None:
        # Outside a loop the compiler would find what is computed twice, and keep it after all.
        unrolled = compute.unroll_layers >= config.num_layers
        layer = nn.remat(layer, policy=recompute, prevent_cse=unrolled)
    stack: Any = nn.scan(
        layer,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=config.num_layers,
        unroll=compute.unroll_layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    x, layers = stack(config, name="layers")(x, cache.layers if cache else None, context)
    return x, Cache(layers, context.key_segments) if cache else None
