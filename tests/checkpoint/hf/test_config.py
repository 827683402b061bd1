import dataclasses
import json

import pytest

from tulu_jax.checkpoint.hf import from_hf, to_hf
from tulu_jax.checkpoint.hf.config import read_config
from tulu_jax.checkpoint.hf.generation import generation_config
from tulu_jax.errors import CheckpointError

from .small import CONFIG, TIED
from .small_families import CONFIGS, LLAMA3, NEOX, OPT, PUBLISHED


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip(name):
    assert from_hf(json.loads(json.dumps(to_hf(CONFIGS[name], "float32")))) == CONFIGS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_what_is_written(name):
    transformers = pytest.importorskip("transformers")
    config = CONFIGS[name]
    written = to_hf(config, "float32")
    theirs = transformers.AutoConfig.for_model(written["model_type"]).from_dict(written)
    again = {
        **json.loads(theirs.to_json_string(use_diff=False)),
        "architectures": written["architectures"],
    }
    assert from_hf(again) == config


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_read(name):
    config = from_hf(PUBLISHED[name])
    again = from_hf(to_hf(config, "float16"))
    assert again == config


def test_what_published_files_say():
    llama3 = from_hf(PUBLISHED["llama31_8b_instruct"])
    assert llama3.rope_scaling == LLAMA3 and llama3.rope_theta == 5e5
    assert llama3.stop_ids == (128001, 128008, 128009) and llama3.num_params == 8_030_261_248
    small = from_hf(PUBLISHED["opt_350m"])
    assert (small.word_dim, small.norm_first, small.final_norm) == (512, False, False)
    assert small.num_params == 331_196_416 and small.tie_embeddings and small.pad_id == 1
    pythia = from_hf(PUBLISHED["pythia_6.9b"])
    assert (pythia.rotary_dim, pythia.head_dim, pythia.num_params) == (32, 128, 6_857_302_016)


def fields(config=CONFIG, **changes):
    found = {**to_hf(config, "float32"), **changes}
    return {name: value for name, value in found.items() if value is not ...}


def test_transformers_5_writes_rope_parameters():
    rope = {"rope_theta": 5e5, "rope_type": "default"}
    assert from_hf(fields(rope_theta=..., rope_parameters=rope)).rope_theta == 5e5
    rope = {
        "rope_theta": 5e5, "rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
        "high_freq_factor": 4, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    found = from_hf(fields(rope_theta=..., rope_scaling=..., rope_parameters=rope))
    assert (found.rope_theta, found.rope_scaling) == (5e5, LLAMA3)
    rope = {"rope_theta": 3e4, "rope_type": "default", "partial_rotary_factor": 0.5}
    changes = dict(rotary_pct=..., rotary_emb_base=..., partial_rotary_factor=..., rope_theta=...)
    found = from_hf(fields(NEOX, rope_parameters=rope, **changes))
    assert (found.rope_theta, found.rotary_share) == (3e4, 0.5)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (CONFIG, {"rope_parameters": {"rope_theta": 5e5}},
         r"rope_theta and rope_parameters.rope_theta contradict each other - got 10000.0 and "
         r"500000.0 at config.json - expected one value - keep the one that the model was trained"),
        (CONFIG, {"rope_scaling": {"type": "default", "rope_theta": 1e6}},
         "rope_theta and rope_scaling.rope_theta contradict"),
        (CONFIG, {"rope_scaling": {"type": "linear", "factor": 2},
                  "rope_parameters": {"rope_type": "default"}},
         "rope_scaling and rope_parameters contradict each other - got RopeScaling.*'default'"),
        (NEOX, {"rope_theta": 5e5}, "rotary_emb_base and rope_theta contradict"),
        (NEOX, {"rotary_pct": 1.0}, "rotary_pct and partial_rotary_factor contradict"),
        (NEOX, {"rope_parameters": {"partial_rotary_factor": 1.0}}, "rotary_pct and .* contradict"),
    ],
)  # fmt: skip
def test_one_setting_in_two_fields_has_one_value(config, changes, message):
    with pytest.raises(CheckpointError, match=message):
        from_hf(fields(config, **changes))


def test_defaults_of_old_configs():
    old = from_hf(fields(
        num_key_value_heads=..., head_dim=..., rope_theta=..., tie_word_embeddings=...,
        rope_scaling=..., hidden_act=..., pad_token_id=-1,
    ))  # fmt: skip
    assert (old.num_kv_heads, old.head_dim, old.rope_theta) == (4, 4, 10_000.0)
    assert (old.tie_embeddings, old.pad_id) == (False, None)
    assert from_hf(fields(max_position_embeddings=..., max_sequence_length=64)).max_length == 64
    assert from_hf(fields(head_dim=None)).head_dim == 4
    assert from_hf(fields(NEOX, bos_token_id=None)).bos_id is None


MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}


def test_a_mistral_within_its_window_is_a_llama():
    for window in (None, 32, 4096):
        assert from_hf(fields(**MISTRAL, sliding_window=window)) == CONFIG
    assert from_hf(fields(**MISTRAL)) == CONFIG
    kinds = ["full_attention"] * 2
    assert from_hf(fields(**MISTRAL, layer_types=kinds)) == CONFIG


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}])
def test_fields_that_say_nothing_is_used_pass(value):
    assert from_hf(fields(some_new_trick=value)) == CONFIG


LLAMA3_WITHOUT_LENGTH = {
    "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["QwenForCausalLM"]},
         r"unknown architecture - got .*Qwen.* expected LlamaForCausalLM or Mistral.* or GPTNeoX"),
        ({"architectures": ...}, "unknown architecture"),
        ({"model_type": "mistral"}, "model_type is not supported"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling is not supported - "
         r".*dynamic.* expected null, or a dictionary of rope_type linear or llama3"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is not supported .* expected factor"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor is malformed"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "RopeScaling.factor is out of range"),
        ({"rope_scaling": LLAMA3_WITHOUT_LENGTH}, "expected original_max_position_embeddings in"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mscale": 1.0}}, "rope_scaling is not"),
        ({"rope_scaling": "linear"}, "rope_scaling is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 8}}, "rope_parameters is not supp"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported - got 0.5"),
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
        ({"eos_token_id": []}, r"eos_token_id is malformed - got \[\] .* one token id, or several"),
        ({"eos_token_id": [2, None]}, r"eos_token_id is malformed"),
        ({"eos_token_id": None}, r"eos_token_id is malformed"),
        ({"eos_token_id": [2, 50]}, "eos_token_id names a token that the model does not have "
         "- got 50 at config.json - expected ids below vocab_size=50"),
        ({"pad_token_id": 50}, r"pad_token_id names a token .* - got 50 .* or null for no pad"),
        ({"bos_token_id": 10**9}, "bos_token_id names a token that the model does not have"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is malformed - got nan .* a finite number"),
        ({"rms_norm_eps": 10**400}, r"rms_norm_eps is malformed .* a number up to 1e\+30"),
        ({"bos_token_id": [1, 2]}, r"bos_token_id is malformed - got \[1, 2\] .* one token id"),
        ({"num_key_value_heads": 3}, "query heads cannot share"),
        ({"num_hidden_layers": 0}, "num_layers of the model is impossible"),
        ({**MISTRAL, "sliding_window": 31}, "sliding_window is not supported - got 31 .* expected "
         "null, or at least max_position_embeddings=32 - set max_position_embeddings to"),
        ({**MISTRAL, "max_position_embeddings": 32768}, "sliding_window is not supported - got 40"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is not supported"),
        ({"use_qk_norm": True, "scale": 2.0}, "scale, use_qk_norm is not known - got .*2.0.* - "
         "expected only fields whose meaning is implemented - remove it from config.json if"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(changes, message):
    with pytest.raises(CheckpointError, match=message):
        from_hf(fields(**changes))


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (OPT, {"activation_function": "gelu"}, "activation_function is not supported - got 'gelu'"),
        (OPT, {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine is not sup"),
        (OPT, {"hidden_size": 18}, "heads cannot share the model's width evenly"),
        (OPT, {"ffn_dim": ...}, "ffn_dim is missing"),
        (OPT, {"eos_token_id": [2, 3]}, "eos_token_id is malformed"),
        (OPT, {"rms_norm_eps": 1e-5}, "rms_norm_eps is not known"),
        (NEOX, {"hidden_act": "gelu_new"}, "hidden_act is not supported"),
        (NEOX, {"layer_norm_eps": ...}, "layer_norm_eps is missing"),
        (
            NEOX,
            {"rotary_pct": 0.2, "partial_rotary_factor": 0.2},
            "rotary positions need pairs of channels",
        ),
        (NEOX, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is not support"),
        (NEOX, {"num_key_value_heads": 1}, "num_key_value_heads is not known"),
    ],
)
def test_refusals_of_other_families(config, changes, message):
    with pytest.raises(CheckpointError, match=message):
        from_hf(fields(config, **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json is missing"),
        (b'{"hidden_size": 16', "config.json is not a JSON object - got Expecting"),
        (b"\xff\xfe", "config.json is not a JSON object - got UTF-16 text .* - save it as UTF-8"),
        (b"\xff", "not a JSON object - got .*utf-8.* can't decode .* - mend the file"),
        (b"", "not a JSON object - got an empty file at .* - mend the file"),
        (b"version https://git-lfs.github.com/spec/v1", "got a Git LFS pointer .* `git lfs pull`"),
        (b"<!DOCTYPE html>", "not a JSON object - got a web page"),
        (
            b'{"vocab_size": 1, "vocab_size": 2}',
            "got the field vocab_size twice with two values at",
        ),
        (b"[" * 100_000, "config.json is not a JSON object - got nested too deeply"),
        (b"[]", "config.json is not a JSON object - got a JSON list"),
    ],
)
def test_bad_files(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


def test_generation_config_names_the_special_tokens():
    assert generation_config(TIED) == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    several = dataclasses.replace(TIED, extra_eos_ids=(5, 7))
    assert generation_config(several)["eos_token_id"] == [2, 5, 7]
