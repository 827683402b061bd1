"""Weights split into layers: of every form that training keeps them in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.generate import Engine
from tulu_jax.generate.weights import leaves, moved, read_bytes, split_weights
from tulu_jax.models import abstract_params, forward
from tulu_jax.models.family import declared_weights
from tulu_jax.models.lora import LoraConfig, abstract_adapters, adapt, quantize_base
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

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


def test_eight_bits_are_near_and_take_a_byte():
    pytest.importorskip("qwix")
    params = random_params(CONFIG)
    weights = split_weights(CONFIG, params, "float32", int8=True)
    up = weights.layers[1]["matrices"]["mlp"]["up"]
    assert up.rows.dtype == jnp.int8 and up.scale.shape == (CONFIG.d_ff,)
    matrix = params["layers"]["mlp"]["up"][1].T
    steps = np.abs(matrix).max(1) / 127.5
    np.testing.assert_allclose(up.scale, steps, rtol=1e-5)
    off = np.abs(np.asarray(up.rows) * np.asarray(up.scale)[:, None] - matrix)
    assert (off <= 0.501 * steps[:, None]).all()
    assert weights.head.rows.dtype == jnp.float32
    bits = sum(leaf.nbytes for leaf in jax.tree.leaves(weights.layers))
    assert bits < 0.4 * sum(leaf.nbytes for leaf in jax.tree.leaves(params["layers"]))


def test_an_engine_of_eight_bits_answers_by_the_rounded_weights():
    pytest.importorskip("qwix")
    engine = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[], int8=True)
    (found,) = engine.generate([PROMPTS[4]], max_new_tokens=8)
    rounded = jax.tree.map(np.copy, random_params(CONFIG))
    layers = split_weights(CONFIG, rounded, "float32", int8=True).layers
    for path, leaf in leaves(rounded):
        if path[0] == "layers" and declared_weights(CONFIG)[path].inputs:
            for number, layer in enumerate(layers):
                weight = layer["matrices"][path[1]][path[2]]
                matrix = np.asarray(weight.rows) * np.asarray(weight.scale)[:, None]
                leaf[number] = matrix.T.reshape(leaf[number].shape)
    tokens = np.array([[*PROMPTS[4], *found.tokens]], np.int32)
    logits = jax.jit(forward, static_argnums=0)(CONFIG, rounded, tokens)
    whole = np.asarray(jax.nn.log_softmax(logits))[0, len(PROMPTS[4]) - 1 : -1]
    expected = whole[np.arange(8), found.tokens]
    np.testing.assert_allclose(found.logprobs, expected, atol=1e-4)
    exact = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])
    (other,) = exact.generate([PROMPTS[4]], max_new_tokens=1)
    assert other.logprobs[0] != found.logprobs[0]


def test_weights_from_the_host_are_laid_over_the_mesh():
    layout = layout_for(CONFIG, make_mesh(MeshConfig(fsdp=1, tensor=2), jax.devices()[:2]))
    with layout.activate():
        weights = split_weights(CONFIG, iter(leaves(random_params(CONFIG))), "float32")
        again = moved(CONFIG, split_weights(CONFIG, random_params(CONFIG), "float32"))
    for found in (weights, again):
        attention = found.layers[0]["matrices"]["attention"]
        shards = {name: attention[name].rows.addressable_data(0).shape for name in attention}
        # 4 query and 2 key heads of 4 channels, a width of 16
        assert shards == {"query": (8, 16), "key": (4, 16), "value": (4, 16), "out": (16, 8)}
        assert found.head.rows.addressable_data(0).shape == (20, 16)
    jax.tree.map(np.testing.assert_array_equal, weights, again)
    plain = split_weights(CONFIG, random_params(CONFIG), "float32")
    jax.tree.map(np.testing.assert_array_equal, weights, plain)
    on_third = moved(CONFIG, plain, jax.devices()[2])
    assert {leaf.device for leaf in jax.tree.leaves(on_third)} == {jax.devices()[2]}


def test_a_step_reads_all_weights_but_the_table():
    weights = split_weights(CONFIG, random_params(CONFIG), "float32")
    table = CONFIG.vocab_size * CONFIG.d_model * 4
    assert read_bytes(CONFIG, weights) == CONFIG.num_params * 4 - table
    tied = dataclasses.replace(CONFIG, tie_embeddings=True)
    whole = split_weights(tied, random_params(tied), "float32")
    assert read_bytes(tied, whole) == tied.num_params * 4
