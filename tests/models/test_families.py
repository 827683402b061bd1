"""Configs of all families, what their trees of weights hold, and configs as JSON values."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole import forward, init_params

from tulu_jax.errors import ConfigError
from tulu_jax.models import (
    FAMILIES,
    ComputeConfig,
    LlamaConfig,
    NeoxConfig,
    OptConfig,
    RopeScaling,
    abstract_params,
    config_from_dict,
    config_to_dict,
    head_weight,
    layer_matrices,
    logical_axes,
)
from tulu_jax.models.family import register

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
def test_numbers_of_weights_are_those_of_the_tree(name):
    config = VARIANTS[name]
    tree = abstract_params(config)
    leaves = {tuple(k.key for k in p): x for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    assert config.num_params == sum(leaf.size for leaf in leaves.values())
    names = ("query", "key", "value", "out", "gate", "up", "down")
    layer = {
        "/".join(path[1:]): leaf.size // config.num_layers
        for path, leaf in leaves.items()
        if path[-1] in names
    }
    found = {path: size.weights for path, size in layer_matrices(config).items()}
    assert found == layer and config.num_layer_matmul_params == sum(layer.values())
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), tree)
    assert head_weight(config, shapes).shape == (config.embedding_width, config.vocab_size)
    assert head_weight(config, shapes).size == config.num_head_params
    other = sum(leaves[path].size for path in (("project_in",), ("project_out",)) if path in leaves)
    assert config.num_matmul_params == (
        config.num_layers * sum(layer.values()) + config.num_head_params + other
    )


def test_sizes_of_matrices_by_hand():
    assert layer_matrices(LLAMA)["attention/key"] == (32, 2 * 8)
    assert layer_matrices(LLAMA)["attention/out"] == (4 * 8, 32)
    assert layer_matrices(OPT) == {
        **{f"attention/{name}": (32, 32) for name in ("query", "key", "value", "out")},
        "mlp/up": (32, 48),
        "mlp/down": (48, 32),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_has_a_name_of_hugging_face(family):
    """So `all-linear` means all of them."""
    named = {own for owns in FAMILIES[family].linear_names.values() for own in owns}
    variants = [config for config in VARIANTS.values() if config.family == family]
    assert variants
    for config in variants:
        assert {path.split("/")[-1] for path in layer_matrices(config)} == named


def test_a_second_family_of_one_name():
    class Other(LlamaConfig):
        pass

    with pytest.raises(ValueError, match="family llama is registered already, as LlamaConfig"):
        register(Other)


def test_weights_that_are_not_declared():
    @dataclasses.dataclass(frozen=True)
    class Careless(LlamaConfig):
        def decoder(self, compute):
            return Undeclared()

    class Undeclared(nn.Module):
        @nn.compact
        def __call__(self, tokens, segments, positions):
            return self.param("table", nn.initializers.zeros, (2, 2))

    with pytest.raises(TypeError, match="weight table is not declared by matrix, table or vector"):
        _ = Careless(**dataclasses.asdict(LLAMA)).num_params


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
        (
            {"family": "gpt2"},
            "family of the model is unknown - got 'gpt2' - expected llama or neox",
        ),
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
        ({"factor": 0.5}, "RopeScaling.factor is out of range - got 0.5 - expected 1 or more"),
        ({"original_length": 0}, "RopeScaling.original_length is out of range - got 0"),
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
