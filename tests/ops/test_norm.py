"""RMS and layer norm against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tulu_jax.ops import layer_norm, rms_norm


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.1])
def test_equals_float64_numpy(eps):
    rng = np.random.default_rng(0)
    x, scale = rng.normal(size=(2, 3, 16)), rng.normal(size=16)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale
    got = rms_norm(jnp.float32(x), jnp.float32(scale), eps=eps)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_bfloat16_has_float32_statistics():
    # 256 + 1 is not a bfloat16: a bfloat16 sum over 512 ones would stop at 256.
    x = jnp.ones((1, 1, 512), jnp.bfloat16)
    np.testing.assert_array_equal(rms_norm(x, jnp.ones(512), eps=1e-6), x)


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_equals_float64_numpy(eps):
    rng = np.random.default_rng(0)
    x, scale, bias = 3 + rng.normal(size=(2, 3, 16)), rng.normal(size=16), rng.normal(size=16)
    spread = np.sqrt(x.var(-1, keepdims=True) + eps)
    expected = (x - x.mean(-1, keepdims=True)) / spread * scale + bias
    got = layer_norm(jnp.float32(x), jnp.float32(scale), jnp.float32(bias), eps=eps)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    half = layer_norm(jnp.bfloat16(x), jnp.float32(scale), jnp.float32(bias), eps=eps)
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_gradients_equal_float64_differences(eps):
    """Of a weighted sum, by central differences in float64 NumPy."""
    rng = np.random.default_rng(1)
    x, pull = rng.normal(size=(2, 2, 3, 16)) + 0.5
    scale, bias = rng.normal(size=(2, 16))

    def rms(x, scale):
        return np.sum(pull * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale)

    def layer(x, scale, bias):
        normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return np.sum(pull * (normed * scale + bias))

    def back(norm, *arguments):
        arguments = tuple(map(jnp.float32, arguments))
        return jax.vjp(functools.partial(norm, eps=eps), *arguments)[1](jnp.float32(pull))

    for norm, expected, arguments in (
        (rms_norm, rms, (x, scale)),
        (layer_norm, layer, (x, scale, bias)),
    ):
        for number, got in enumerate(back(norm, *arguments)):
            wanted = differences(expected, arguments, number)
            np.testing.assert_allclose(got, wanted, atol=2e-5)


def differences(function, arguments, number, step=1e-5):
    """Central differences of the function with respect to every entry of one argument."""
    found = np.zeros_like(arguments[number])
    for place in np.ndindex(found.shape):
        values = []
        for sign in (1, -1):
            moved = [array.copy() for array in arguments]
            moved[number][place] += sign * step
            values.append(function(*moved))
        found[place] = (values[0] - values[1]) / (2 * step)
    return found


def test_bfloat16_gradients_are_those_of_torch():
    """transformers' norms in bfloat16: the same to a rounding of the largest."""
    rng = np.random.default_rng(2)
    x, pull = (torch.tensor(v, dtype=torch.bfloat16) for v in rng.normal(size=(2, 5, 64)))
    scale, bias = (torch.tensor(v, dtype=torch.float32) for v in rng.normal(size=(2, 64)))
    ours = [jnp.bfloat16(v.float().numpy()) for v in (x, pull)]

    theirs = LlamaRMSNorm(64, eps=1e-5).to(torch.bfloat16)
    theirs.weight.data = scale.to(torch.bfloat16)
    rounded = theirs.weight.detach().float().numpy()
    _, back = jax.vjp(functools.partial(rms_norm, eps=1e-5), ours[0], jnp.asarray(rounded))
    assert_as_torch(back(ours[1]), theirs, x, pull, [theirs.weight])

    layer = torch.nn.LayerNorm(64, eps=1e-5).to(torch.bfloat16)
    layer.weight.data, layer.bias.data = scale.to(torch.bfloat16), bias.to(torch.bfloat16)
    vectors = [jnp.asarray(v.detach().float().numpy()) for v in (layer.weight, layer.bias)]
    _, back = jax.vjp(functools.partial(layer_norm, eps=1e-5), ours[0], *vectors)
    assert_as_torch(back(ours[1]), layer, x, pull, [layer.weight, layer.bias])


def assert_as_torch(gradients, module, x, pull, weights):
    x = x.clone().requires_grad_()
    module(x).backward(pull)
    for got, wanted in zip(gradients, [x.grad, *(w.grad for w in weights)], strict=True):
        wanted = wanted.float().numpy()
        np.testing.assert_allclose(
            np.float32(got), wanted, atol=2**-7 * np.abs(wanted).max(), rtol=0
        )


@pytest.mark.parametrize("norm", [rms_norm, layer_norm])
def test_only_the_input_is_kept(norm):
    x, vectors = jnp.ones((4, 8), jnp.bfloat16), [jnp.ones(8)] * (1 + (norm is layer_norm))
    kept = jax.tree.leaves(jax.vjp(functools.partial(norm, eps=1e-5), x, *vectors)[1])
    assert [leaf.dtype for leaf in kept if leaf.shape == x.shape] == [jnp.bfloat16]
