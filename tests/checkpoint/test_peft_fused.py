"""Adapters of GPT-NeoX's fused query, key and value, as one of PEFT's of three times the rank."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole import forward

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.hf.safetensors_io import Shard, write_shard
from tulu_jax.checkpoint.peft import F32, load_peft, save_peft
from tulu_jax.errors import CheckpointError
from tulu_jax.models import NeoxConfig, abstract_params
from tulu_jax.models.lora import LoraConfig, abstract_adapters, adapt

CONFIG = NeoxConfig(
    vocab_size=20, d_model=8, d_ff=16, num_layers=2, num_heads=2, max_length=16, norm_eps=1e-5,
    rotary_share=0.5,
)  # fmt: skip
LORA = LoraConfig(rank=2, alpha=3, dropout=0.0, base_dtype="float32")
TOKENS = jnp.arange(12).reshape(2, 6) + 3
MODULE = "base_model.model.gpt_neox.layers.{}.attention.query_key_value"


def draw(shapes, seed, scale=0.4):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (rng.normal(size=x.shape) * scale).astype(np.float32), shapes)


def assert_equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_there_and_back(tmp_path):
    adapters = draw(abstract_adapters(CONFIG, LORA), 0)
    save_peft(tmp_path / "a", CONFIG, LORA, adapters, base="base")
    fields = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert fields["rank_pattern"] == {"query_key_value": 6}
    assert fields["alpha_pattern"] == {"query_key_value": 9}
    found, tree = load_peft(tmp_path / "a", CONFIG)
    assert_equal_trees(tree, adapters)
    assert (found.rank, found.scale) == (LORA.rank, LORA.scale)
    assert found.weights == LORA.weights - {"gate"}


def test_weights_without_an_adapter_get_one_that_does_nothing(tmp_path):
    lora = LoraConfig(rank=2, alpha=3, dropout=0.0, targets=("query", "value"))
    adapters = draw(abstract_adapters(CONFIG, lora), 0)
    save_peft(tmp_path / "a", CONFIG, lora, adapters, base="base")
    found, tree = load_peft(tmp_path / "a", CONFIG)
    assert found.weights == {"query", "key", "value"}
    key = tree["layers"]["attention"].pop("key")
    assert_equal_trees(tree, adapters)
    assert not key["a"].any() and not key["b"].any()


def test_an_adapter_that_peft_trained_has_one_a_for_all_three(tmp_path):
    save_peft(tmp_path / "a", CONFIG, LORA, draw(abstract_adapters(CONFIG, LORA), 0), base="base")
    path = tmp_path / "a" / "adapter_config.json"
    plain = {"rank_pattern": {}, "alpha_pattern": {}, "target_modules": ["query_key_value"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **plain}))
    factors = {}
    for layer in range(2):
        factors[MODULE.format(layer) + ".lora_A.weight"] = draw(np.empty((2, 8)), layer)
        factors[MODULE.format(layer) + ".lora_B.weight"] = draw(np.empty((24, 2)), layer + 9)
    weights = tmp_path / "a" / "adapter_model.safetensors"
    shard = Shard(weights.name, {name: factor.shape for name, factor in factors.items()})
    write_shard(weights, shard, F32, iter(factors.items()))
    attention = load_peft(tmp_path / "a", CONFIG)[1]["layers"]["attention"]
    a, b = (factors[f"{MODULE.format(1)}.lora_{name}.weight"] for name in "AB")
    # rows of a head: 4 of query, 4 of key, 4 of value
    for name, first in (("query", 0), ("key", 4), ("value", 8)):
        assert np.array_equal(attention[name]["a"][1], a.T)
        rows = [*range(first, first + 4), *range(first + 12, first + 16)]
        assert np.array_equal(attention[name]["b"][1], b[rows].T)


def test_numbers_outside_the_blocks_are_refused(tmp_path):
    adapters = draw(abstract_adapters(CONFIG, LORA), 0)
    save_peft(tmp_path / "a", CONFIG, LORA, adapters, base="base")
    file = tmp_path / "a" / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start, _ = header[MODULE.format(0) + ".lora_B.weight"]["data_offsets"]
    place = 8 + int.from_bytes(data[:8], "little") + start + 4 * 5  # row of query, rank of value
    data[place : place + 4] = np.float32(1).tobytes()
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not one of ours - got 1 numbers outside"):
        load_peft(tmp_path / "a", CONFIG)


@pytest.mark.parametrize("change", [{"alpha_pattern": {}}, {"rank_pattern": {"dense": 6}}])
def test_other_ranks_are_refused(tmp_path, change):
    save_peft(tmp_path / "a", CONFIG, LORA, draw(abstract_adapters(CONFIG, LORA), 0), base="base")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match="rank_pattern of the adapter is not supported"):
        load_peft(tmp_path / "a", CONFIG)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning")
def test_peft_gives_the_same_logits(tmp_path):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    params = draw(abstract_params(CONFIG), 1)
    hf.save(tmp_path / "base", CONFIG, params)
    adapters = draw(abstract_adapters(CONFIG, LORA), 2)
    save_peft(tmp_path / "a", CONFIG, LORA, adapters, base=str(tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "a").eval()
    theirs = model(input_ids=torch.tensor(np.asarray(TOKENS))).logits.detach().numpy()
    ours = forward(CONFIG, adapt(CONFIG, LORA, params, adapters), TOKENS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.max(np.abs(theirs - forward(CONFIG, params, TOKENS))) > 0.01
