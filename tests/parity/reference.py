"""transformers' models with the weights of ours, and the configs the two are compared on."""

import dataclasses
from typing import Any

import numpy as np
import torch
import transformers
from weights import with_plain_numbers

from tulu_jax.checkpoint.hf import to_hf
from tulu_jax.checkpoint.hf.names import tensors_of
from tulu_jax.models import (
    LlamaConfig,
    ModelConfig,
    NeoxConfig,
    OptConfig,
    RopeScaling,
)

torch.set_num_threads(1)  # models this small only wait for the second

LLAMA = LlamaConfig(
    vocab_size=96,
    d_model=32,
    d_ff=56,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    max_length=64,
    norm_eps=1e-5,
)
OPT = OptConfig(
    vocab_size=95, d_model=32, d_ff=56, num_layers=2, num_heads=4, max_length=64, word_dim=32
)
NEOX = NeoxConfig(
    vocab_size=97,
    d_model=32,
    d_ff=56,
    num_layers=2,
    num_heads=4,
    max_length=64,
    norm_eps=1e-5,
    rotary_share=0.25,
)

CONFIGS: dict[str, ModelConfig] = {
    "gqa": dataclasses.replace(LLAMA, num_kv_heads=2, norm_eps=1e-6),
    "mqa_tied": dataclasses.replace(LLAMA, num_kv_heads=1, tie_embeddings=True),
    "wide_heads": dataclasses.replace(LLAMA, head_dim=14, num_kv_heads=2, rope_theta=5e5),
    "llama3": dataclasses.replace(
        LLAMA, rope_theta=5e5, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 24)
    ),
    "opt": OPT,
    "opt_350m": dataclasses.replace(OPT, word_dim=12, norm_first=False, final_norm=False),
    "neox": NEOX,
    "neox_in_turn": dataclasses.replace(NEOX, parallel_residual=False, rotary_share=1.0),
}


CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "opt": (transformers.OPTConfig, transformers.OPTForCausalLM),
    "neox": (transformers.GPTNeoXConfig, transformers.GPTNeoXForCausalLM),
}


def torch_model(config: ModelConfig, params: dict) -> Any:
    """transformers' model of the same config and weights, eager attention, float32."""
    config_class, model_class = CLASSES[config.family]
    fields = to_hf(config, "float32")
    skipped = ("model_type", "torch_dtype")
    hf_config = config_class(**{k: v for k, v in fields.items() if k not in skipped})
    hf_config._attn_implementation = "eager"
    model = model_class(hf_config).float()
    tensors = {in_memory(name): tensor for name, tensor in to_torch(config, params).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if config.tie_embeddings else set())
    return model.eval()


def in_memory(name: str) -> str:
    """What transformers 5 calls a tensor once it is loaded."""
    return name.replace("embed_out.", "lm_head.")


def to_torch(config: ModelConfig, params: dict) -> dict[str, torch.Tensor]:
    """Our tree (of weights, or of their gradients) under the names of the files."""
    tensors, config = {}, with_plain_numbers(config)
    for tensor in tensors_of(config):
        leaves = []
        for weight in tensor.weights:
            leaf: Any = params
            for key in weight.path:
                leaf = leaf[key]
            leaves.append(np.asarray(leaf) if tensor.per_layer else np.asarray(leaf)[None])
        for layer, name in enumerate(tensor.hf_names(config)):
            array = tensor.to_hf([leaf[layer] for leaf in leaves], config)
            tensors[name] = torch.tensor(np.ascontiguousarray(array))
    return tensors


def random_tokens(config: ModelConfig, rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Token ids without the pad token, whose row of the embedding gets no gradient in torch."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, config.vocab_size, (rows, length)).astype(np.int32)
    return np.where(tokens == config.pad_id, 0, tokens) if config.pad_id else tokens


def max_diff(ours, theirs) -> float:
    """Largest absolute difference between one of our arrays and a tensor."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert np.asarray(ours).shape == theirs.shape
    return float(np.max(np.abs(np.asarray(ours) - theirs), initial=0.0))


def divergence(ours, theirs) -> float:
    """Mean Kullback-Leibler divergence of our next-token distributions from theirs, in nats."""
    logits = torch.tensor(np.array(ours, np.float32))
    return float(
        torch.nn.functional.kl_div(
            logits.log_softmax(-1).flatten(0, -2),
            theirs.detach().float().log_softmax(-1).flatten(0, -2),
            log_target=True,
            reduction="batchmean",
        )
    )
