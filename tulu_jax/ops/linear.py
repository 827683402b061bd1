"""A matrix product whose weight gradient is laid out as the hardware wants it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tulu_jax.ops.adapted import AdaptedWeight
from tulu_jax.ops.quantized import QuantizedWeight, dense
from tulu_jax.ops.transposed import TransposedWeight, product


def linear(
    x: Float[Array, "*batch A"], weight: Float[Array, "A *out"] | AdaptedWeight | TransposedWeight
) -> Float[Array, "*batch _"]:
    """`x @ weight` in x's dtype, with every axis of `weight` after the first joined into one.

    The same product as `x @ weight.reshape(A, -1)`. JAX's own gradient of the weight is computed
    transposed, for which XLA first copies the larger of the two activations element by element;
    here the smaller one is (measured on 2 CPU cores: 15 per cent of a training step). The
    gradient is accumulated and returned in the dtype of `weight`, float32, whatever x's dtype.
    An `AdaptedWeight` adds its adapter's product; its frozen weight has no gradient at all. A
    `TransposedWeight`, for generation, has none either.
    """
    if isinstance(weight, TransposedWeight):
        return product(x, weight)
    if isinstance(weight, AdaptedWeight):
        return _adapted(x, weight)
    return _matmul(x, weight.reshape(weight.shape[0], -1))


def _adapted(x: Array, weight: AdaptedWeight) -> Array:
    """The frozen and the adapter's product; the key alone decides dropout, on any mesh alike."""
    seen = x
    if weight.key is not None:
        key = jax.random.wrap_key_data(weight.key)
        kept = jax.random.bernoulli(key, 1 - weight.rate, x.shape)
        seen = jnp.where(kept, x / (1 - weight.rate), jnp.zeros_like(x))
    added = weight.scale * _matmul(_matmul(seen, weight.a), weight.b)
    if isinstance(weight.weight, QuantizedWeight):
        return _quantized_matmul(x, weight.weight) + added
    if isinstance(weight.weight, TransposedWeight):
        return product(x, weight.weight) + added
    frozen = jax.lax.stop_gradient(weight.weight.reshape(weight.shape[0], -1))
    return x @ frozen.astype(x.dtype) + added


@jax.custom_vjp
def _quantized_matmul(x: Array, weight: QuantizedWeight) -> Array:
    """`x @ dense(weight)`; the backward pass keeps the 4 or 8 bits and unpacks them again."""
    return x @ dense(weight, x.dtype)


def _quantized_forward(x: Array, weight: QuantizedWeight) -> tuple[Array, QuantizedWeight]:
    return _quantized_matmul(x, weight), weight


def _quantized_backward(weight: QuantizedWeight, upstream: Array) -> tuple[Array, None]:
    return upstream @ dense(weight, upstream.dtype).T, None


_quantized_matmul.defvjp(_quantized_forward, _quantized_backward)


@jax.custom_vjp
def _matmul(x: Array, weight: Array) -> Array:
    return x @ weight.astype(x.dtype)


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return _matmul(x, weight), (x, weight)


def _backward(saved: tuple[Array, Array], upstream: Array) -> tuple[Array, Array]:
    x, weight = saved
    rows = math.prod(x.shape[:-1])
    flat, flat_up = x.reshape(rows, -1), upstream.reshape(rows, -1)
    wide = weight.dtype
    if flat.shape[1] <= flat_up.shape[1]:
        grad = jnp.einsum("PA,PB->AB", flat, flat_up, preferred_element_type=wide)
    else:
        grad = jnp.einsum("PB,PA->BA", flat_up, flat, preferred_element_type=wide).T
    return upstream @ weight.astype(x.dtype).T, grad


_matmul.defvjp(_forward, _backward)
