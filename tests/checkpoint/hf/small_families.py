"""Small configs of every family, and config.json files as the published models have them."""

import dataclasses

from tulu_jax.models import LlamaConfig, NeoxConfig, OptConfig, RopeScaling

from .small import CONFIG, TIED

OPT = OptConfig(
    vocab_size=51, d_model=16, d_ff=24, num_layers=2, num_heads=4, max_length=32, word_dim=16
)
NEOX = NeoxConfig(
    vocab_size=51,
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=2,
    max_length=32,
    norm_eps=1e-5,
    rotary_share=0.25,
)
LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)

CONFIGS: dict[str, LlamaConfig | OptConfig | NeoxConfig] = {
    "llama": CONFIG,
    "llama_tied": TIED,
    "llama3": dataclasses.replace(
        CONFIG, rope_theta=5e5, rope_scaling=LLAMA3, eos_id=7, extra_eos_ids=(8, 9)
    ),
    "llama_linear": dataclasses.replace(CONFIG, rope_scaling=RopeScaling("linear", 2.0)),
    "opt": OPT,
    "opt_350m": dataclasses.replace(OPT, word_dim=6, norm_first=False, final_norm=False),
    "opt_without_final_norm": dataclasses.replace(OPT, final_norm=False),
    "opt_untied": dataclasses.replace(OPT, tie_embeddings=False, use_bias=False, pad_id=None),
    "neox": NEOX,
    "neox_in_turn": dataclasses.replace(
        NEOX, parallel_residual=False, attention_bias=False, tie_embeddings=True, rotary_share=1.0
    ),
}

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "pretraining_tp": 1,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}

PUBLISHED = {
    "llama_7b": {
        "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 2048, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": 0,
        "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "torch_dtype": "float16",
        "transformers_version": "4.28.0.dev0", "use_cache": True, "vocab_size": 32000,
    },
    "llama2_70b": {
        **_LLAMA, "_name_or_path": "meta-llama/Llama-2-70b-hf", "bos_token_id": 1,
        "eos_token_id": 2, "hidden_size": 8192, "intermediate_size": 28672,
        "max_position_embeddings": 4096, "num_attention_heads": 64, "num_hidden_layers": 80,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "tie_word_embeddings": False, "transformers_version": "4.32.0.dev0", "vocab_size": 32000,
    },
    "llama31_8b_instruct": {
        **_LLAMA, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
        "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
        "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
        "tie_word_embeddings": False, "transformers_version": "4.42.3", "vocab_size": 128256,
    },
    "llama32_1b": {
        **_LLAMA, "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64,
        "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
        "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 16,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
        "tie_word_embeddings": True, "transformers_version": "4.45.0.dev0", "vocab_size": 128256,
    },
    "mistral_7b_v03": {
        "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.42.0",
        "use_cache": True, "vocab_size": 32768,
    },
    "opt_350m": {
        "_name_or_path": "opt-350m", "activation_dropout": 0.0, "activation_function": "relu",
        "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 2,
        "do_layer_norm_before": False, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 4096,
        "hidden_size": 1024, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
        "model_type": "opt", "num_attention_heads": 16, "num_hidden_layers": 24,
        "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16",
        "transformers_version": "4.20.0.dev0", "use_cache": True, "vocab_size": 50272,
        "word_embed_proj_dim": 512,
    },
    "opt_6.7b": {
        "_remove_final_layer_norm": False, "activation_dropout": 0.0,
        "activation_function": "relu", "architectures": ["OPTForCausalLM"],
        "attention_dropout": 0.0, "bos_token_id": 2, "do_layer_norm_before": True, "dropout": 0.1,
        "eos_token_id": 2, "ffn_dim": 16384, "hidden_size": 4096, "init_std": 0.02,
        "layerdrop": 0.0, "max_position_embeddings": 2048, "model_type": "opt",
        "num_attention_heads": 32, "num_hidden_layers": 32, "pad_token_id": 1, "prefix": "</s>",
        "torch_dtype": "float16", "transformers_version": "4.21.0.dev0", "use_cache": True,
        "vocab_size": 50272, "word_embed_proj_dim": 4096,
    },
    "pythia_6.9b": {
        "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0,
        "hidden_act": "gelu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 16384, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
        "model_type": "gpt_neox", "num_attention_heads": 32, "num_hidden_layers": 32,
        "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
        "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": True,
        "use_parallel_residual": True, "vocab_size": 50432,
    },
}  # fmt: skip
"""Fields as in the published files, from memory of them; name -> config.json."""
