"""What an exported folder must hold for each program that reads it."""

import json

import pytest

from tulu_jax.checkpoint import hf

from .small import CONFIG, TIED, random_params, read_tensors, write_folder
from .small_families import NEOX, OPT

LLAMA_CPP = (
    "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
    "rms_norm_eps", "rope_theta", "bos_token_id", "eos_token_id",
)  # fmt: skip
"""What convert_hf_to_gguf.py of llama.cpp takes from config.json for a LLaMA."""
VLLM = (*LLAMA_CPP, "model_type", "torch_dtype", "tie_word_embeddings", "hidden_act",
        "attention_bias", "mlp_bias", "rope_scaling")  # fmt: skip
"""What vllm/model_executor/models/llama.py takes besides; names of transformers 4."""
NEOX_FIELDS = (
    "architectures", "model_type", "torch_dtype", "vocab_size", "hidden_size", "intermediate_size",
    "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "layer_norm_eps",
    "rotary_pct", "rope_theta", "use_parallel_residual", "attention_bias", "hidden_act",
    "tie_word_embeddings",
)  # fmt: skip
"""What llama.cpp and vLLM 0.11's gpt_neox.py take for a GPT-NeoX."""
OPT_FIELDS = (
    "architectures", "model_type", "torch_dtype", "vocab_size", "hidden_size", "ffn_dim",
    "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "word_embed_proj_dim",
    "do_layer_norm_before", "_remove_final_layer_norm", "enable_bias",
    "layer_norm_elementwise_affine", "activation_function", "tie_word_embeddings",
)  # fmt: skip
"""What vLLM 0.11's opt.py takes for an OPT."""


@pytest.mark.parametrize(
    ("config", "names"), [(NEOX, NEOX_FIELDS), (OPT, OPT_FIELDS)], ids=["neox", "opt"]
)
def test_fields_of_other_families(tmp_path, config, names):
    folder = write_folder(tmp_path / "x", config, dtype="bfloat16")
    fields = json.loads((folder / "config.json").read_text())
    assert not [name for name in names if name not in fields]


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_fields_and_names(tmp_path, config):
    folder = write_folder(tmp_path / "x", config, dtype="bfloat16")
    fields = json.loads((folder / "config.json").read_text())
    assert not [name for name in (*LLAMA_CPP, *VLLM) if name not in fields]
    assert fields["torch_dtype"] == "bfloat16"
    names = set(read_tensors(folder / "model.safetensors"))
    assert ("lm_head.weight" in names) is not config.tie_embeddings
    raw = (folder / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}, "transformers 4 refuses files without it"


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_transformers_reads_every_dtype_as_it_is(tmp_path, config):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    for dtype in ("bfloat16", "float16", "float32"):
        folder = tmp_path / dtype
        hf.save(folder, config, random_params(config), dtype=dtype, max_shard_bytes=4000)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert model.dtype == getattr(torch, dtype)
        assert model.config.rms_norm_eps == config.norm_eps
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert tied is config.tie_embeddings
