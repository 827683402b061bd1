"""Adapters in every family: beside the weights, or merged into them, the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole import forward

from tulu_jax.errors import ConfigError
from tulu_jax.models import NeoxConfig, OptConfig, abstract_params
from tulu_jax.models.lora import (
    LoraConfig,
    abstract_adapters,
    adapt,
    adapter_shapes,
    at,
    init_adapters,
    merge,
)

SIZES = {"vocab_size": 30, "d_model": 16, "d_ff": 24, "num_layers": 2, "num_heads": 2,
         "max_length": 16}  # fmt: skip
CONFIGS = {
    "opt": OptConfig(**SIZES, word_dim=16),
    "neox": NeoxConfig(**SIZES, norm_eps=1e-5, rotary_share=0.5),
}
LORA = LoraConfig(rank=3, alpha=6, dropout=0.5, targets=("fc1", "fc2", "value", "out"))


def draw(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: (rng.normal(size=x.shape) * 0.3).astype(np.float32), tree)


@pytest.mark.parametrize("family", CONFIGS)
def test_beside_equals_merged(family):
    config = CONFIGS[family]
    params, adapters = draw(abstract_params(config)), draw(abstract_adapters(config, LORA))
    tokens = jnp.arange(12).reshape(2, 6)
    beside = forward(config, adapt(config, LORA, params, adapters), tokens)
    plain = forward(config, params, tokens)
    shapes = adapter_shapes(config, LORA)
    assert {path[-1] for path in shapes} == {"up", "down", "value", "out"}
    for path in shapes:
        own = at(adapters, path)
        place = at(params, path[:-1])
        place[path[-1]] = merge(place[path[-1]], own["a"], own["b"], scale=LORA.scale)
    np.testing.assert_allclose(beside, forward(config, params, tokens), atol=1e-4)
    assert float(jnp.max(jnp.abs(beside - plain))) > 0.1


def test_fresh_adapters_change_nothing_and_dropout_is_a_function_of_the_key():
    config = CONFIGS["opt"]
    params = draw(abstract_params(config))
    tokens = jnp.arange(12).reshape(2, 6)
    fresh = init_adapters(config, LORA, jax.random.key(0))
    dropped = adapt(config, LORA, params, fresh, jax.random.key(1))
    plain = forward(config, params, tokens)
    np.testing.assert_array_equal(forward(config, dropped, tokens), plain)
    bound = 1 / np.sqrt(16)
    a = fresh["layers"]["mlp"]["up"]["a"]
    assert a.shape == (2, 16, 3) and 0.8 * bound < float(jnp.max(jnp.abs(a))) <= bound
    adapters = draw(fresh)

    def logits(seed):
        return forward(config, adapt(config, LORA, params, adapters, jax.random.key(seed)), tokens)

    np.testing.assert_array_equal(logits(1), logits(1))
    assert float(jnp.max(jnp.abs(logits(1) - logits(2)))) > 0.01


def test_a_target_the_model_lacks():
    with pytest.raises(ConfigError, match=r"no weight of that name - got LoraConfig.targets gate"):
        adapter_shapes(CONFIGS["opt"], LoraConfig(targets=("gate_proj",)))
