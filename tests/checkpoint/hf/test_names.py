import dataclasses

import jax
import numpy as np
import pytest

from tulu_jax.checkpoint.hf.families import hf_family
from tulu_jax.checkpoint.hf.family import REGISTRY, register
from tulu_jax.checkpoint.hf.names import (
    HARMLESS,
    canonical_names,
    expected_tensors,
    tensors_of,
    weights_of,
)
from tulu_jax.checkpoint.reader import TreeReader
from tulu_jax.models import FAMILIES, abstract_params

from .small import CONFIG
from .small_families import CONFIGS, NEOX, OPT


@pytest.mark.parametrize("name", CONFIGS)
def test_table_covers_the_tree_of_weights(name):
    config = CONFIGS[name]
    paths = [row.path for row in weights_of(config)]
    assert len(paths) == len(set(paths))
    assert set(paths) == set(TreeReader(abstract_params(config)).paths())
    size = sum(int(np.prod(shape)) for shape in expected_tensors(config).values())
    assert size == sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))
    assert size == config.num_params


def test_shapes_of_tensors_by_hand():
    llama, opt, neox = (expected_tensors(config) for config in (CONFIG, OPT, NEOX))
    width, vocabulary = CONFIG.d_model, (CONFIG.vocab_size, CONFIG.d_model)
    kv_width = CONFIG.num_kv_heads * CONFIG.head_dim
    assert llama["model.layers.1.self_attn.k_proj.weight"] == (kv_width, width)
    assert llama["model.layers.0.self_attn.o_proj.weight"][0] == width
    assert llama["lm_head.weight"] == llama["model.embed_tokens.weight"] == vocabulary
    assert opt["model.decoder.embed_positions.weight"] == (34, 16)
    assert opt["model.decoder.layers.0.self_attn.q_proj.bias"] == (16,)
    assert opt["model.decoder.layers.0.fc1.weight"] == (24, 16)
    assert neox["gpt_neox.layers.0.attention.query_key_value.weight"] == (48, 16)
    assert neox["gpt_neox.layers.0.attention.query_key_value.bias"] == (48,)


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back_is_the_identity(name):
    config = CONFIGS[name]
    for tensor in tensors_of(config):
        shape = tensor.hf_shape(config)
        numbers = np.arange(np.prod(shape)).reshape(shape)
        parts = []
        for weight in tensor.weights:
            leaf = abstract_params(config)
            for key in weight.path:
                leaf = leaf[key]
            ours_shape = leaf.shape[1:] if tensor.per_layer else leaf.shape
            parts.append(np.ascontiguousarray(weight.from_hf(numbers, ours_shape)))
            assert parts[-1].shape == ours_shape
        assert np.array_equal(tensor.to_hf(parts, config), numbers)


def test_worked_example_of_the_docstring():
    query = next(row for row in weights_of(CONFIG) if row.path[-1] == "query")
    tensor = np.array([["a", "b"], ["c", "d"], ["e", "f"]])
    ours = query.from_hf(tensor, (2, 1, 3))
    assert ours[:, 0, :].tolist() == [["a", "c", "e"], ["b", "d", "f"]]


def test_fused_example_of_the_docstring():
    rows = [row for row in weights_of(NEOX) if row.tensor.pattern.endswith("query_key_value.bias")]
    tensor = np.array(["q0", "k0", "v0", "q1", "k1", "v1"])
    ours = {row.path[-1]: row.from_hf(tensor, (2, 1)).ravel().tolist() for row in rows}
    assert ours == {
        "query_bias": ["q0", "q1"],
        "key_bias": ["k0", "k1"],
        "value_bias": ["v0", "v1"],
    }
    matrices = [
        row for row in weights_of(NEOX) if row.tensor.pattern.endswith("query_key_value.weight")
    ]
    assert matrices[1].from_hf(tensor[:, None], (1, 2, 1)).ravel().tolist() == ["k0", "k1"]


@pytest.mark.parametrize("family", REGISTRY.values(), ids=REGISTRY)
def test_names_of_tables_are_unique(family):
    patterns = [tensor.pattern for tensor in family.table]
    assert len(patterns) == len(set(patterns))


def test_embedding_and_head():
    llama, opt, neox = (hf_family(config) for config in (CONFIG, OPT, NEOX))
    assert (llama.embedding, llama.head) == ("model.embed_tokens.weight", "lm_head.weight")
    assert opt.embedding == "model.decoder.embed_tokens.weight"
    assert (neox.embedding, neox.head) == ("gpt_neox.embed_in.weight", "embed_out.weight")


def test_torch_modules_of_the_parts_of_a_layer():
    opt, neox = hf_family(OPT), hf_family(NEOX)
    assert [opt.module(part) for part in OPT.layer_parts] == [
        "self_attn_layer_norm", "self_attn", "final_layer_norm", "fc2",
    ]  # fmt: skip
    assert [neox.module(part) for part in NEOX.layer_parts] == [
        "input_layernorm", "attention", "post_attention_layernorm", "mlp",
    ]  # fmt: skip
    assert (opt.layers, neox.layers) == ("model.decoder.layers", "gpt_neox.layers")


def test_every_family_has_one_entry_on_both_sides():
    assert set(REGISTRY) == set(FAMILIES)
    with pytest.raises(ValueError, match="family neox is registered already"):
        register(hf_family(NEOX))


@pytest.mark.parametrize("weight", ["embedding", "lm_head"])
def test_tables_have_an_embedding_and_a_head(weight):
    neox = hf_family(NEOX)
    table = tuple(row for row in neox.table if row.paths != ((weight,),))
    with pytest.raises(ValueError, match=f"family new has no row for {weight} in its table"):
        register(dataclasses.replace(neox, name="new", table=table))
    assert "new" not in REGISTRY


def test_names_of_bare_and_renamed_models():
    old = ["decoder.embed_tokens.weight", "lm_head.weight"]
    assert list(canonical_names(OPT, old).values()) == [f"model.{old[0]}", old[1]]
    new = ["gpt_neox.embed_in.weight", "lm_head.weight"]
    assert list(canonical_names(NEOX, new).values()) == [new[0], "embed_out.weight"]
    whole = list(expected_tensors(CONFIG))
    assert canonical_names(CONFIG, whole) == {name: name for name in whole}


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", True),
        ("gpt_neox.layers.0.attention.bias", True),
        ("gpt_neox.layers.0.attention.masked_bias", True),
        ("model.decoder.version", True),
        ("gpt_neox.layers.0.attention.dense.bias", False),
        ("model.decoder.layers.0.self_attn.q_proj.bias", False),
        ("model.layers.0.self_attn.bias", False),
    ],
)
def test_harmless_buffers(name, harmless):
    assert bool(HARMLESS.search(name)) == harmless
