import dataclasses
import json

import pytest

from tulu_jax.checkpoint.hf import from_hf, to_hf
from tulu_jax.checkpoint.hf.config import generation_config, read_config
from tulu_jax.errors import CheckpointError

from .small import CONFIG, TIED


@pytest.mark.parametrize("config", [CONFIG, TIED, dataclasses.replace(CONFIG, rope_theta=5e5)])
def test_round_trip(config):
    assert from_hf(json.loads(json.dumps(to_hf(config, "float32")))) == config


def fields(**changes):
    found = {**to_hf(CONFIG, "float32"), **changes}
    return {name: value for name, value in found.items() if value is not ...}


def test_transformers_5_writes_rope_parameters():
    rope = {"rope_theta": 5e5, "rope_type": "default"}
    assert from_hf(fields(rope_theta=..., rope_parameters=rope)).rope_theta == 5e5


def test_defaults_of_old_configs():
    old = from_hf(fields(
        num_key_value_heads=..., head_dim=..., rope_theta=..., tie_word_embeddings=...,
        rope_scaling=..., hidden_act=..., pad_token_id=-1,
    ))  # fmt: skip
    assert (old.num_kv_heads, old.head_dim, old.rope_theta) == (4, 4, 10_000.0)
    assert (old.tie_embeddings, old.pad_id) == (False, None)
    assert from_hf(fields(max_position_embeddings=..., max_sequence_length=64)).max_length == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MistralForCausalLM"]}, r"unknown architecture - got .*Mistral"),
        ({"architectures": ...}, "unknown architecture"),
        ({"model_type": "mistral"}, "model_type is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is not supported"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "rope_parameters is not supp"),
        ({"attention_bias": True}, "attention_bias is not supported - got True"),
        ({"mlp_bias": True}, "mlp_bias is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act is not supported - got 'gelu' .* expected \"silu\""),
        ({"quantization_config": {"bits": 4}}, "quantization_config is not supported"),
        ({"rms_norm_eps": ...}, "rms_norm_eps is missing .* not guessed"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is malformed - got '1e-5'"),
        ({"hidden_size": 16.5}, "hidden_size is malformed"),
        ({"vocab_size": ...}, "vocab_size is missing"),
        ({"max_position_embeddings": ...}, "max_position_embeddings is missing"),
        ({"head_dim": ..., "hidden_size": 18}, "head_dim is missing"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is malformed"),
        ({"eos_token_id": [2, 3]}, r"eos_token_id is malformed - got \[2, 3\]"),
        ({"num_key_value_heads": 3}, "query heads cannot share"),
        ({"num_hidden_layers": 0}, "num_layers of the model is impossible"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(changes, message):
    with pytest.raises(CheckpointError, match=message):
        from_hf(fields(**changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json is missing"),
        (b'{"hidden_size": 16', "config.json is unreadable"),
        (b"\xff\xfe", "config.json is unreadable"),
        (b"[]", "config.json is malformed - got list"),
    ],
)
def test_bad_files(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


def test_generation_config_names_the_special_tokens():
    assert generation_config(TIED) == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
