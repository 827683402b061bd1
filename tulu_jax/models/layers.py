"""Parts that the families share: norms, attention with its cache, feed-forward, scanned layers.

Every weight names its logical axes where its shape is given; `tulu_jax.parallel` maps the names to
mesh axes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tulu_jax.models.config import ComputeConfig, attention_kernel, check_offload
from tulu_jax.models.family import ModelConfig
from tulu_jax.models.remat import policy, tag
from tulu_jax.models.weight import constrain, matrix, table, vector
from tulu_jax.ops import apply_rotary, attend, layer_norm, linear, rms_norm, silu_gate
from tulu_jax.ops.attention.cached import (
    Blocks,
    LayerCache,
    attend_chunk,
    write_chunk,
    write_tokens,
)
from tulu_jax.ops.attention.decoding import attend_tokens

ACTIVATION_AXES = ("batch", "activation_length", "activation_embed")
"""Axes of what goes from block to block."""
BLOCK_AXES = ("batch", "length", "activation_embed")
"""Axes of what a block begins with: gathered once, not by each of its matrices."""

CACHE_AXES = (None, "kv_heads", None, None)
"""Axes of a layer's cache."""


class Rotary(NamedTuple):
    """The angles that each query and key turns by."""

    cos: Float[Array, "B T half"]
    sin: Float[Array, "B T half"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Kernel:
    """An attention kernel by name; passes through traces as no array at all."""

    name: str = "blockwise"


class Place(NamedTuple):
    """Where new tokens stand in a cache."""

    slots: Int[Array, " B"]
    """The slot, and position, of the first token of each row of the batch."""
    alive: Bool[Array, " B"]
    """Rows that are looked at; what the others give means nothing."""
    row: Int[Array, ""] | None = None
    """The row of the cache that a batch of one row [1, T] stands in; None for a batch [B, 1] that
    has one token of every row of the cache."""
    kernel: Kernel = Kernel("rows")
    """The attention kernel for such a batch."""
    blocks: Blocks | None = None
    """What its rows have alike in the cache; None: nothing."""


class AttentionContext(NamedTuple):
    """Each query's conversation and angles, or its place in a cache: all attention knows."""

    segments: Int[Array, "B T"]
    rotary: Rotary | None = None
    """None where positions are not rotary."""
    kernel: Kernel = Kernel()
    place: Place | None = None
    """None without a cache."""


class Cache(NamedTuple):
    """What cached tokens are run with: weights and cache of every layer, apart, and the place.

    Neither is stacked: a loop over stacked arrays copies every layer's weights and cache in each
    step.
    """

    weights: Sequence[Any]
    """Of each layer, the variables its module is applied to."""
    layers: Sequence[LayerCache]
    place: Place


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
        if cache is None or context.place is None:
            mixed = attend(
                query, key, value, context.segments, context.segments, kernel=context.kernel.name
            )
        else:
            mixed, cache = _attend_cached(query, key, value, cache, context.place)
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


def _attend_cached(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    cache: LayerCache,
    place: Place,
) -> tuple[Float[Array, "B T N H"], LayerCache]:
    """The mixed values, and the cache with this call's keys and values."""
    if place.row is None:
        cache = constrain_cache(write_tokens(cache, key[:, 0], value[:, 0], place.slots))
        mixed = attend_tokens(
            query[:, 0], cache, place.slots, place.alive, place.blocks, kernel=place.kernel.name
        )
        return mixed[:, None], cache
    cache = constrain_cache(write_chunk(cache, key[0], value[0], place.row, place.slots[0]))
    return attend_chunk(query[0], cache, place.row, place.slots[0])[None], cache


def constrain_cache(cache: LayerCache) -> LayerCache:
    """The cache with its heads split as the rules in force say, and every row on all devices."""
    return LayerCache(*(constrain(array, CACHE_AXES) for array in cache))


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
) -> Float[Array, "B T D"]:
    """The activations after all layers, which share one trace; call it in a compact method.

    `layer(config)` takes activations, a cache or None, and `context`, and returns the first two.
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
    return stack(config, name="layers")(x, None, context)[0]


def run_cached_layers(
    layer: type[nn.Module],
    config: ModelConfig,
    x: Float[Array, "B T D"],
    context: AttentionContext,
    cache: Cache,
) -> tuple[Float[Array, "B T D"], list[LayerCache]]:
    """Likewise, one layer after the other with its own weights and cache, which is returned."""
    run: Any = jax.jit(layer(config, parent=None).apply)  # traced once for all layers
    layers = []
    for weights, of_layer in zip(cache.weights, cache.layers, strict=True):
        x, after = run(weights, x, of_layer, context)
        layers.append(after)
    return x, layers
