"""Remat policies: the same results, more products computed again, less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import whole

from tulu_jax.errors import ConfigError
from tulu_jax.models import ComputeConfig, LlamaConfig, hidden_states, init_params, layers
from tulu_jax.models.config import check_offload
from tulu_jax.models.remat import TAGS, kept_names, policy
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

CONFIG = LlamaConfig(
    vocab_size=32, d_model=32, d_ff=64, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8,
    max_length=64, norm_eps=1e-5,
)  # fmt: skip
POLICIES = ["none", "minimal", "attention", "full"]


def loss(params, compute, rows=2):
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(3, 32, (rows, 64)))
    segments = jnp.asarray(np.repeat([1, 2, 3, 0], 16)[None].repeat(rows, axis=0))
    positions = jnp.tile(jnp.arange(16), (rows, 4))
    states = hidden_states(CONFIG, params, tokens, segments, positions, compute=compute)
    return jnp.sum(jnp.sin(states))


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda weight: weight * 5, whole.init_params(CONFIG, jax.random.key(0)))


def gradients(params, **settings):
    compute = ComputeConfig(**settings)
    run = jax.jit(jax.value_and_grad(lambda params: loss(params, compute)))
    return jax.tree.leaves(jax.device_get(run(params)))


@pytest.fixture(scope="module")
def plain(params):
    return gradients(params)


def assert_same(found, plain):
    """To the rounding of sums whose terms are as large as the largest gradient, up to 17,000."""
    for got, expected in zip(found, plain, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("remat", ["dots", "attention", "full", "query,mlp_gate"])
def test_changes_no_result(remat, params, plain):
    assert_same(gradients(params, remat=remat), plain)


def num_products(**settings):
    compute = ComputeConfig(**settings)
    shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))
    text = str(jax.make_jaxpr(jax.grad(lambda params: loss(params, compute)))(shapes))
    return text.count("dot_general")


@pytest.mark.parametrize(
    ("remat", "again"),
    [
        ("none", 0),
        ("minimal", 1),  # query x key
        ("attention", 7),  # those that make query, key, value, join, gate and up, besides
        ("full", 8),  # scores x value
        ("query,key,value,attention_out", 4),  # query x key, join, gate, up
        ("mlp_hidden", 8),  # gate and up as well: the gradients of their product take them
    ],
)
def test_computes_again_what_it_does_not_keep(remat, again):
    """Of a layer's nine products, seven with weights and two of attention, three times each."""
    assert num_products(remat=remat) == 3 * 9 + again


def test_memory_shrinks_with_what_is_kept():
    layout = layout_for(CONFIG, make_mesh(MeshConfig(data=4, fsdp=2)))
    sizes = []
    with layout.activate():
        shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))
        for remat in POLICIES:
            compute = ComputeConfig(remat=remat)
            step = jax.jit(jax.grad(lambda params, c=compute: loss(params, c, rows=64)))
            sizes.append(step.lower(shapes).compile().memory_analysis().temp_size_in_bytes)
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4, sizes


def test_unrolled_layers_are_still_computed_again():
    """Without a loop between them the compiler would merge both computations."""
    shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))

    def barriers(unroll_layers):
        compute = ComputeConfig(remat="full", unroll_layers=unroll_layers)
        lowered = jax.jit(jax.grad(lambda params: loss(params, compute))).lower(shapes)
        return lowered.as_text().count("optimization_barrier")

    assert barriers(3) and not barriers(1)


def test_offloaded_names_go_to_the_host(monkeypatch, params, plain):
    """CPU devices can be told to, though they gain nothing and a user may not."""
    monkeypatch.setattr(layers, "check_offload", lambda compute: None)
    settings = {"remat": "attention", "offload_activations": "layer_input,attention_out"}
    compute = ComputeConfig(**settings)
    text = str(jax.make_jaxpr(jax.grad(lambda params: loss(params, compute)))(params))
    assert "<host>" in text or "pinned_host" in text
    assert_same(gradients(params, **settings), plain)


def test_offload_is_refused_on_cpu(params):
    with pytest.raises(
        ConfigError,
        match="cannot be offloaded on these devices - got OFFLOAD_ACTIVATIONS='layer_input' on cpu "
        "- expected TPU or GPU - set OFFLOAD_ACTIVATIONS=''",
    ):
        loss(params, ComputeConfig(remat="full", offload_activations="layer_input"))
    check_offload(ComputeConfig())


def test_offload_needs_remat():
    with pytest.raises(ConfigError, match="got OFFLOAD_ACTIVATIONS='query' with REMAT='none'"):
        ComputeConfig(offload_activations="query")


def test_kept_names_docstring_example():
    assert kept_names("none") is None and kept_names("full") == ()
    assert kept_names("query, mlp_gate") == ("query", "mlp_gate")
    assert kept_names("dots") == kept_names("minimal")
    assert set(kept_names("minimal")) < set(TAGS)


def test_cudnn_results_are_kept_with_attention():
    """They have no tag; only the name of what makes them."""

    class Primitive:
        name = "dot_product_attention_fwd_wrapper"

    assert policy("attention", "", "cudnn")(Primitive) is True
    assert policy("full", "", "cudnn")(Primitive) is False
    assert policy("attention", "", "splash")(Primitive) is False
