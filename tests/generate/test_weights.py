"""Weights split into layers: of every form that training keeps them in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.generate import Engine
from tulu_jax.generate.weights import leaves, split_weights
from tulu_jax.models import abstract_params, forward
from tulu_jax.models.lora import LoraConfig, abstract_adapters, adapt, quantize_base

from .test_engine import CONFIG, PROMPTS, random_params


def adapted(base_dtype):
    lora = LoraConfig(rank=3, alpha=6, targets=("q_proj", "down_proj"), base_dtype=base_dtype)
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.3,
        abstract_adapters(CONFIG, lora),
    )
    base = random_params(CONFIG)
    if lora.quantized:
        base = quantize_base(CONFIG, lora, jax.tree.map(jnp.asarray, base))
    return adapt(CONFIG, lora, base, adapters)


@pytest.mark.parametrize("base_dtype", ["float32", "int8"])
def test_adapters_stay_beside_their_weights(base_dtype):
    params = adapted(base_dtype)
    engine = Engine(CONFIG, params, slots=2, stop_ids=[])
    (found,) = engine.generate([PROMPTS[2]], max_new_tokens=8)
    tokens = np.array([[*PROMPTS[2], *found.tokens]], np.int32)
    logits = jax.jit(forward, static_argnums=0)(CONFIG, params, tokens)
    whole = np.asarray(jax.nn.log_softmax(logits))[0, len(PROMPTS[2]) - 1 : -1]
    assert found.tokens == whole.argmax(-1).tolist()
    np.testing.assert_allclose(found.logprobs, whole.max(-1), atol=1e-4)
    (plain,) = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[]).generate(
        [PROMPTS[2]], max_new_tokens=8
    )
    assert plain.tokens != found.tokens


def test_leaves_one_by_one_give_what_the_tree_gives():
    params = random_params(CONFIG)
    tree = split_weights(CONFIG, params, "float32")
    one_by_one = split_weights(CONFIG, iter(leaves(params)), "float32")
    assert jax.tree.structure(tree) == jax.tree.structure(one_by_one)
    jax.tree.map(np.testing.assert_array_equal, tree, one_by_one)
    held = sum(leaf.size for leaf in jax.tree.leaves((tree.outer, tree.layers)))
    assert held == sum(leaf.size for leaf in jax.tree.leaves(abstract_params(CONFIG)))
