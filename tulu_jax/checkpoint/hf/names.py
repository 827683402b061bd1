"""One table: which Hugging Face tensor holds which of our weights, and how they differ.

The only difference is the order of axes: Hugging Face stores a matrix as [out, in], we store
[in, out] with heads as an axis of their own. Rotary channels are half-split on both sides, so
nothing is permuted.

    layers/attention/query [L, D, N, H]  <->  L tensors q_proj.weight [N*H, D]

With D = 2, one head of H = 3, and HF tensor

    q_proj.weight  [[a, b],      ours[layer, :, 0, :]  [[a, c, e],
                    [c, d],                             [b, d, f]]
                    [e, f]]
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tulu_jax.checkpoint.arrays import ParamPath
from tulu_jax.models import LlamaConfig

Shape = tuple[int, ...]

HARMLESS = re.compile(r"(^|\.)rotary_emb\.inv_freq$")
"""Tensors that old exports carry and that config.json already determines."""


@dataclass(frozen=True)
class Weight:
    """One row of the table."""

    path: ParamPath
    pattern: str
    """Name of the Hugging Face tensor; `{layer}` stands for the layer's number."""
    hf_shape: Callable[[LlamaConfig], Shape]
    transposed: bool = True
    """Whether Hugging Face stores [out, in] where we store [in, out]."""

    @property
    def per_layer(self) -> bool:
        """Whether one tensor holds one layer of the weight."""
        return "{layer}" in self.pattern

    def hf_names(self, config: LlamaConfig) -> list[str]:
        """The tensors that together make the weight, in order of layers."""
        if not self.per_layer:
            return [self.pattern]
        return [self.pattern.format(layer=layer) for layer in range(config.num_layers)]

    def from_hf(self, tensor: np.ndarray, shape: Shape) -> np.ndarray:
        """One layer of our weight, of `shape`, from its tensor (a view where possible)."""
        return (tensor.T if self.transposed else tensor).reshape(shape)

    def to_hf(self, array: np.ndarray, config: LlamaConfig) -> np.ndarray:
        """The tensor of one layer of our weight (a view)."""
        shape = self.hf_shape(config)
        return array.reshape(shape[::-1]).T if self.transposed else array.reshape(shape)


def _query(c: LlamaConfig) -> Shape:
    return (c.num_heads * c.head_dim, c.d_model)


def _key_value(c: LlamaConfig) -> Shape:
    return (c.num_kv_heads * c.head_dim, c.d_model)


def _norm(c: LlamaConfig) -> Shape:
    return (c.d_model,)


def _vocabulary(c: LlamaConfig) -> Shape:
    return (c.vocab_size, c.d_model)


def _wide(c: LlamaConfig) -> Shape:
    return (c.d_ff, c.d_model)


def _layer(path: str, name: str, shape: Callable[[LlamaConfig], Shape], matrix: bool) -> Weight:
    full = ("layers", *path.split("/"))
    return Weight(full, f"model.layers.{{layer}}.{name}.weight", shape, matrix)


EMBEDDING = Weight(("embedding",), "model.embed_tokens.weight", _vocabulary, transposed=False)
LM_HEAD = Weight(("lm_head",), "lm_head.weight", _vocabulary)

TABLE = (
    EMBEDDING,
    _layer("attention_norm/scale", "input_layernorm", _norm, False),
    _layer("attention/query", "self_attn.q_proj", _query, True),
    _layer("attention/key", "self_attn.k_proj", _key_value, True),
    _layer("attention/value", "self_attn.v_proj", _key_value, True),
    _layer("attention/out", "self_attn.o_proj", lambda c: _query(c)[::-1], True),
    _layer("mlp_norm/scale", "post_attention_layernorm", _norm, False),
    _layer("mlp/gate", "mlp.gate_proj", _wide, True),
    _layer("mlp/up", "mlp.up_proj", _wide, True),
    _layer("mlp/down", "mlp.down_proj", lambda c: _wide(c)[::-1], True),
    Weight(("final_norm", "scale"), "model.norm.weight", _norm, transposed=False),
    LM_HEAD,
)


def weights_of(config: LlamaConfig) -> list[Weight]:
    """The rows of the table that a model of this config has."""
    return [row for row in TABLE if not (config.tie_embeddings and row is LM_HEAD)]


def expected_tensors(config: LlamaConfig) -> dict[str, Shape]:
    """Every tensor a checkpoint of this config holds, with its shape."""
    return {
        name: row.hf_shape(config) for row in weights_of(config) for name in row.hf_names(config)
    }
