"""The gate of SwiGLU, with a gradient that keeps nothing but its two inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def silu_gate(
    gate: Float[Array, "*batch F"], up: Float[Array, "*batch F"]
) -> Float[Array, "*batch F"]:
    """`silu(gate) * up`, in their dtype; silu(x) is x / (1 + exp(-x)).

    The sigmoid is float32 and silu rounded once before the product, as torch does it. JAX's own
    gradient would keep the sigmoid and silu beside the inputs: twice as much.

        gate    0      1        -1
        up      2      3        2
        result  0      2.1932   -0.5379

    Source: Shazeer 2020, arXiv 2002.05202; transformers `LlamaMLP`.
    """
    wide = gate.astype(jnp.float32)
    return (wide * jax.nn.sigmoid(wide)).astype(gate.dtype) * up


def _forward(gate: Array, up: Array) -> tuple[Array, tuple[Array, Array]]:
    return silu_gate(gate, up), (gate, up)


def _backward(saved: tuple[Array, Array], upstream: Array) -> tuple[Array, Array]:
    gate, up, pull = (x.astype(jnp.float32) for x in (*saved, upstream))
    share = jax.nn.sigmoid(gate)
    gate_grad = pull * up * share * (1 + gate * (1 - share))
    return gate_grad.astype(saved[0].dtype), (pull * gate * share).astype(saved[1].dtype)


silu_gate.defvjp(_forward, _backward)
