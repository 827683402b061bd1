"""transformers' LLaMA with the weights of ours, and the configs the two are compared on."""

import dataclasses

import jax
import numpy as np
import torch
import transformers

from tulu_jax.checkpoint.hf import to_hf
from tulu_jax.checkpoint.hf.names import weights_of
from tulu_jax.models import LlamaConfig, abstract_params

torch.set_num_threads(2)

BASE = LlamaConfig(
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

CONFIGS = {
    "mha": BASE,
    "gqa": dataclasses.replace(BASE, num_kv_heads=2, norm_eps=1e-6),
    "mqa_tied": dataclasses.replace(BASE, num_kv_heads=1, tie_embeddings=True),
    "wide_heads": dataclasses.replace(BASE, head_dim=14, num_kv_heads=2, rope_theta=5e5),
    "tied_deep": dataclasses.replace(
        BASE, num_layers=4, d_model=48, num_heads=6, num_kv_heads=3, tie_embeddings=True
    ),
}


def random_params(config: LlamaConfig, seed: int = 0) -> dict:
    """Weights large enough that a wrong sign or order shows, as NumPy arrays."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "scale":
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.normal(size=leaf.shape) * 0.15).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(config))


def torch_model(config: LlamaConfig, params: dict) -> transformers.LlamaForCausalLM:
    """transformers' model of the same config and weights, eager attention, float32."""
    fields = to_hf(config, "float32")
    hf_config = transformers.LlamaConfig(
        **{
            name: value
            for name, value in fields.items()
            if name not in ("model_type", "torch_dtype")
        }
    )
    hf_config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(hf_config).float()
    missing, unexpected = model.load_state_dict(to_torch(config, params), strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if config.tie_embeddings else set())
    return model.eval()


def to_torch(config: LlamaConfig, params: dict) -> dict[str, torch.Tensor]:
    """Our tree (of weights, or of their gradients) under transformers' names."""
    tensors = {}
    for row in weights_of(config):
        leaf = params
        for key in row.path:
            leaf = leaf[key]
        leaf = np.asarray(leaf)
        for name, layer in zip(
            row.hf_names(config), leaf if row.per_layer else [leaf], strict=True
        ):
            tensors[name] = torch.tensor(np.ascontiguousarray(row.to_hf(layer, config)))
    return tensors


def random_tokens(config: LlamaConfig, rows: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, config.vocab_size, (rows, length)).astype(np.int32)


def max_diff(ours, theirs) -> float:
    """Largest absolute difference between one of our arrays and a tensor."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert np.asarray(ours).shape == theirs.shape
    return float(np.max(np.abs(np.asarray(ours) - theirs), initial=0.0))
