"""Configs of all families, what their trees of weights hold, and configs as JSON values."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.models import (
    ComputeConfig,
    LlamaConfig,
    NeoxConfig,
    OptConfig,
    RopeScaling,
    abstract_params,
    config_from_dict,
    config_to_dict,
    forward,
    head_weight,
    init_params,
    logical_axes,
)

LLAMA = LlamaConfig(64, 32, 48, 3, 4, 2, 8, 64, 1e-5)
OPT = OptConfig(65, 32, 48, 3, 4, 64, word_dim=32)
NEOX = NeoxConfig(66, 32, 48, 3, 4, 64, 1e-5, rotary_share=0.25)
VARIANTS = {
    "llama": LLAMA,
    "llama3": dataclasses.replace(
        LLAMA, rope_scaling=RopeScaling("llama3", 8.0, original_length=16), extra_eos_ids=(3, 4)
    ),
    "opt": OPT,
    "opt_350m": dataclasses.replace(OPT, word_dim=12, norm_first=False, final_norm=False),
    "opt_untied": dataclasses.replace(OPT, tie_embeddings=False, use_bias=False),
    "neox": NEOX,
    "neox_plain": dataclasses.replace(
        NEOX, attention_bias=False, tie_embeddings=True, parallel_residual=False
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_num_params_equals_the_tree(name):
    config = VARIANTS[name]
    tree = abstract_params(config)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    assert config.num_params == sum(leaf.size for _, leaf in leaves)
    assert config.num_layer_matmul_params == sum(
        leaf.size // config.num_layers
        for path, leaf in leaves
        if path[-1].key in ("query", "key", "value", "out", "gate", "up", "down")
    )
    assert config.num_vector_params == sum(
        leaf.size
        for path, leaf in leaves
        if path[-1].key in ("scale", "bias") or path[-1].key.endswith("_bias")
    )
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), tree)
    assert head_weight(config, shapes).shape == (config.embedding_width, config.vocab_size)
    assert head_weight(config, shapes).size == config.num_head_params


@pytest.mark.parametrize("name", VARIANTS)
def test_every_weight_names_its_axes(name):
    config = VARIANTS[name]
    shapes = jax.tree_util.tree_leaves_with_path(abstract_params(config))
    is_spec = lambda x: isinstance(x, jax.sharding.PartitionSpec)  # noqa: E731
    axes = dict(jax.tree_util.tree_leaves_with_path(logical_axes(config), is_leaf=is_spec))
    for keys, leaf in shapes:
        assert len(axes[keys]) == leaf.ndim and None not in axes[keys], keys
        assert len(set(axes[keys])) == leaf.ndim, keys
        assert (keys[0].key == "layers") == (axes[keys][0] == "layers")


@pytest.mark.parametrize("name", VARIANTS)
def test_configs_as_json(name):
    config = VARIANTS[name]
    fields = json.loads(json.dumps(config_to_dict(config)))
    assert fields["family"] == config.family
    assert config_from_dict(fields) == config and hash(config_from_dict(fields)) == hash(config)


def test_a_config_without_family_is_a_llama():
    """As checkpoints of before there were others hold it."""
    old = {**dataclasses.asdict(LLAMA)}
    del old["rope_scaling"], old["extra_eos_ids"]
    assert config_from_dict(old) == LLAMA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "gpt2"}, "family of the model is unknown - got 'gpt2' - expected llama or opt"),
        ({"width": 3}, "fields of a llama config are wrong - got .*width.* - expected vocab_size"),
        ({"d_model": "32"}, "LlamaConfig.d_model is not a whole number"),
    ],
)
def test_impossible_fields(change, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict({**config_to_dict(LLAMA), **change})


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (OPT, {"word_dim": 0}, "word_dim of the model is impossible .* look at OptConfig.word_dim"),
        (
            OPT,
            {"num_heads": 5},
            "heads cannot share the model's width evenly - got d_model=32, n",
        ),
        (NEOX, {"num_heads": 5}, "heads cannot share the model's width evenly"),
        (NEOX, {"norm_eps": 0.0}, "norm_eps of the model is impossible"),
        (NEOX, {"rotary_share": 0.4}, "rotary positions need pairs of channels - got rotary_share"),
        (NEOX, {"rotary_share": 1.5}, "rotary positions need pairs of channels"),
        (NEOX, {"rotary_share": 0.1}, "rotary positions need pairs .* expected an even number of"),
    ],
)
def test_impossible_sizes(config, change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **change)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "yarn"}, "RopeScaling.kind is unknown - got 'yarn' - expected linear or llama3"),
        ({"factor": 0.5}, "RopeScaling is out of range - got factor=0.5, original_length=8192"),
        ({"original_length": 0}, "RopeScaling is out of range"),
        ({"low_freq_factor": 4.0}, "frequency factors are out of order - got low_freq_factor=4.0"),
    ],
)
def test_impossible_scalings(values, message):
    with pytest.raises(ConfigError, match=message):
        RopeScaling(**{"kind": "llama3", "factor": 8.0, **values})


def test_stop_ids():
    assert LLAMA.stop_ids == (2,) and VARIANTS["llama3"].stop_ids == (2, 3, 4)
    assert NEOX.stop_ids == (0,)


TOKENS = np.random.default_rng(0).integers(0, 64, (1, 8)).astype(np.int32)


@pytest.mark.parametrize("name", ["opt_350m", "neox"])
def test_fresh_weights_and_gradients_with_remat(name):
    """Every weight but the rows nothing looks up gets a gradient; remat changes none of them."""
    config = VARIANTS[name]
    params = jax.tree.map(np.asarray, init_params(config, jax.random.key(0)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        constant = {"scale": 1, "bias": 0}.get(path[-1].key.split("_")[-1])
        assert (
            np.std(leaf) == pytest.approx(0.02, rel=0.2)
            if constant is None
            else np.all(leaf == constant)
        ), path

    def total(params, compute):
        return jnp.sum(jnp.sin(9 * forward(config, params, TOKENS, compute=compute)))

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    plain = gradient(params, ComputeConfig())
    again = gradient(params, ComputeConfig(remat="full"))
    for (path, left), right in zip(
        jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(again), strict=True
    ):
        np.testing.assert_allclose(left, right, atol=1e-4, rtol=1e-3)
        assert path[-1].key == "key_bias" or np.any(np.asarray(left) != 0), path
