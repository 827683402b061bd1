"""The model's config, weights and plain functions (its numbers are tested in tests/parity)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.models import (
    ComputeConfig,
    LlamaConfig,
    abstract_params,
    forward,
    init_params,
    logical_axes,
    positions_in_segments,
)
from tulu_jax.models.layers import _rows

CONFIG = LlamaConfig(
    vocab_size=64,
    d_model=32,
    d_ff=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_length=64,
    norm_eps=1e-5,
)
VARIANTS = {
    "untied": CONFIG,
    "tied": dataclasses.replace(CONFIG, tie_embeddings=True),
    "wide_heads": dataclasses.replace(CONFIG, head_dim=14, num_kv_heads=4),
}


@pytest.fixture(scope="module")
def params():
    return jax.jit(init_params, static_argnums=0)(CONFIG, jax.random.key(0))


@pytest.mark.parametrize(
    "name",
    ["vocab_size", "d_model", "d_ff", "num_layers", "num_heads", "num_kv_heads", "head_dim",
     "max_length", "norm_eps", "rope_theta"],
)  # fmt: skip
@pytest.mark.parametrize("value", [0, -1])
def test_impossible_sizes(name, value):
    with pytest.raises(
        ConfigError, match=rf"{name} of the model is impossible - got {value} - expected a number "
        rf"above 0 - look at LlamaConfig.{name} or the model's config.json"
    ):  # fmt: skip
        dataclasses.replace(CONFIG, **{name: value})


def test_heads_that_do_not_divide():
    with pytest.raises(
        ConfigError, match=r"query heads cannot share .* got num_heads=4, num_kv_heads=3"
    ):
        dataclasses.replace(CONFIG, num_kv_heads=3)


def test_odd_head_dim():
    with pytest.raises(ConfigError, match=r"rotary positions need pairs .* got head_dim=7"):
        dataclasses.replace(CONFIG, head_dim=7)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("dtype", "float32 or bfloat16"),
        ("remat", "none or minimal or attention or full or dots or layer_input or query"),
        ("attention", "auto or dense or blockwise or splash"),
        ("offload_activations", "layer_input or query"),
    ],
)
def test_unknown_compute_names(name, known):
    with pytest.raises(
        ConfigError, match=rf"ComputeConfig.{name} is unknown - got 'x' - expected {known}"
    ):
        ComputeConfig(**{name: "x"})


@pytest.mark.parametrize("name", VARIANTS)
def test_num_params_equals_the_tree(name):
    config = VARIANTS[name]
    leaves = jax.tree.leaves(abstract_params(config))
    assert config.num_params == sum(leaf.size for leaf in leaves)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_weight_names_its_axes(name):
    config = VARIANTS[name]
    shapes = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    axes = dict(jax.tree_util.tree_leaves_with_path(
        logical_axes(config), is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec)
    ))  # fmt: skip
    assert len(axes) == len(shapes)
    for keys, leaf in shapes:
        assert len(axes[keys]) == leaf.ndim and None not in axes[keys], keys
        assert (keys[0].key == "layers") == (axes[keys][0] == "layers")


def test_positions_docstring_example():
    assert positions_in_segments(jnp.array([[1, 1, 1, 2, 2, 0, 0]])).tolist() == [
        [0, 1, 2, 0, 1, 0, 1]
    ]


def test_fresh_weights_have_their_spread(params):
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        if keys[-1].key == "scale":
            assert np.all(np.asarray(leaf) == 1)
        else:
            assert np.std(leaf) == pytest.approx(0.02, rel=0.15), keys
    query = params["layers"]["attention"]["query"]
    assert not np.array_equal(query[0], query[1])  # each layer draws its own


TOKENS = np.random.default_rng(0).integers(0, 64, (2, 16)).astype(np.int32)
SEGMENTS = np.array([[1] * 16, [1] * 6 + [2] * 7 + [0] * 3], np.int32)


def value_and_gradients(params, compute):
    def total(params):
        logits = forward(CONFIG, params, TOKENS, SEGMENTS, compute=compute)
        return jnp.sum(jnp.sin(logits)), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    return jax.device_get((logits, grads))


def test_scan_unroll_and_remat_compute_the_same(params):
    large = jax.tree.map(lambda weight: weight * 5, params)
    expected, wanted = value_and_gradients(large, ComputeConfig())
    assert expected.shape == (2, 16, 64) and expected.dtype == np.float32
    for compute in (
        ComputeConfig(unroll_layers=3),
        ComputeConfig(unroll_layers=2),
        ComputeConfig(remat="full"),
        ComputeConfig(remat="full", unroll_layers=3),
    ):
        logits, grads = value_and_gradients(large, compute)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        for left, right in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
            # Sums of terms as large as the largest gradient, about 1,300, in another order.
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-6 * np.abs(right).max())


def test_segments_and_positions_have_defaults(params):
    whole = jax.jit(lambda: forward(CONFIG, params, TOKENS))()
    given = jax.jit(lambda: forward(CONFIG, params, TOKENS, np.ones_like(TOKENS),
                                    np.tile(np.arange(16, dtype=np.int32), (2, 1))))()  # fmt: skip
    np.testing.assert_array_equal(whole, given)


def test_bfloat16_gives_float32_logits_near_float32(params):
    half = jax.jit(lambda: forward(CONFIG, params, TOKENS, compute=ComputeConfig("bfloat16")))()
    whole = jax.jit(lambda: forward(CONFIG, params, TOKENS))()
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, whole, atol=0.02)


def test_gradients_of_a_token_are_summed_in_float32(params):
    """512 occurrences with gradients of 1: in bfloat16 the sum would stop at 256."""
    tokens, table = jnp.zeros((1, 512), jnp.int32), params["embedding"]
    total = jax.grad(lambda table: jnp.sum(_rows(table, tokens, jnp.dtype("bfloat16"))))(table)
    assert total.dtype == jnp.float32
    np.testing.assert_array_equal(total[0], 512)
    assert not np.any(total[1:])
