"""LLaMA 1, 2 and 3, TinyLlama, and Mistral, which within its window is a LLaMA."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tulu_jax.checkpoint.hf.family import HfFamily, register
from tulu_jax.checkpoint.hf.fields import Fields
from tulu_jax.checkpoint.hf.weights import matrix, table, vector
from tulu_jax.models import LlamaConfig, RopeScaling

DEFAULT_ROPE_THETA = 10_000.0
MISTRAL_WINDOW = 4096
"""The window of a Mistral whose config names none, as transformers takes it."""
SCALING_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""Kinds of rotary scaling, and what each must say."""


def from_hf(fields: Fields) -> LlamaConfig:
    """The config that the fields describe.

    Raises:
      CheckpointError: naming the field that is missing, malformed or not supported.
    """
    for name, wanted in (
        ("hidden_act", "silu"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("partial_rotary_factor", 1.0),
    ):
        fields.only(name, wanted)
    d_model = fields.integer("hidden_size")
    num_heads = fields.integer("num_attention_heads")
    eos_ids = fields.tokens("eos_token_id", default=2)
    even = num_heads > 0 and d_model % num_heads == 0
    head_dim = fields.integer("head_dim", default=d_model // num_heads if even else None)
    length = "max_position_embeddings"
    if length not in fields and "max_sequence_length" in fields:
        length = "max_sequence_length"
    max_length = fields.integer(length)
    _check_window(fields, max_length)
    theta, scaling = _rope(fields)
    return LlamaConfig(
        vocab_size=fields.integer("vocab_size"),
        d_model=d_model,
        d_ff=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", default=num_heads),
        head_dim=head_dim,
        max_length=max_length,
        norm_eps=fields.number("rms_norm_eps"),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=fields.flag("tie_word_embeddings", default=False),
        bos_id=fields.token("bos_token_id", default=1),
        eos_id=eos_ids[0],
        extra_eos_ids=eos_ids[1:],
        pad_id=fields.pad_id(),
    )


def to_hf(config: LlamaConfig) -> dict[str, Any]:
    """The family's own fields of `config.json`."""
    eos = [config.eos_id, *config.extra_eos_ids]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling_fields(config.rope_scaling),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": eos if len(eos) > 1 else config.eos_id,
        "pad_token_id": config.pad_id,
    }


def _check_window(fields: Fields, max_length: int) -> None:
    """Refuses attention that does not reach back over the model's whole length."""
    missing = MISTRAL_WINDOW if fields.model_type == "mistral" else None
    window = fields.take("sliding_window", default=missing)
    if window is not None and (not isinstance(window, int) or window < max_length):
        raise fields.refusal(
            "sliding_window",
            window,
            expected=f"null, or at least max_position_embeddings={max_length}",
            do="set max_position_embeddings to the window in config.json: up to there the "
            "window hides nothing",
        )
    kinds = fields.take("layer_types", default=None)
    if kinds is not None and set(kinds) != {"full_attention"}:
        raise fields.refusal("layer_types", kinds, expected="full_attention in every layer")


def _rope(fields: Fields) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary rates, as transformers 4 and 5 spell them."""
    thetas = {"rope_theta": fields.take("rope_theta", default=None)}
    scalings = {}
    for name in ("rope_scaling", "rope_parameters"):
        rope = fields.take(name, default=None)
        if rope is None:
            continue
        thetas[f"{name}.rope_theta"] = rope.get("rope_theta") if isinstance(rope, Mapping) else None
        scalings[name] = _scaling(fields, name, rope) or "default"
    theta, scaling = fields.agreed(thetas), fields.agreed(scalings)
    theta = DEFAULT_ROPE_THETA if theta is None else theta
    return fields.as_number("rope_theta", theta), scaling if scaling != "default" else None


def _scaling(fields: Fields, name: str, rope: Any) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, Mapping) else rope
    needed = SCALING_FIELDS.get(kind) if isinstance(kind, str) else None
    known = {"rope_theta", "rope_type", "type", *(needed or ())}
    if needed is None or set(rope) - known:
        raise fields.refusal(
            name, json.dumps(rope), expected="null, or a dictionary of rope_type linear or llama3"
        )
    lost = [key for key in needed if key not in rope]
    if lost:
        raise fields.refusal(name, json.dumps(rope), expected=f"{', '.join(lost)} in it as well")
    values = {key: fields.as_number(f"{name}.{key}", rope[key]) for key in needed}
    length = values.pop("original_max_position_embeddings", None)
    if kind == "default":
        return None
    return RopeScaling(
        kind, **values, **({} if length is None else {"original_length": int(length)})
    )


def _scaling_fields(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_length,
    }


LAYER = "model.layers.{layer}."

TABLE = (
    table("model.embed_tokens.weight", "embedding"),
    vector(LAYER + "input_layernorm.weight", "layers/attention_norm/scale"),
    matrix(LAYER + "self_attn.q_proj.weight", "layers/attention/query"),
    matrix(LAYER + "self_attn.k_proj.weight", "layers/attention/key"),
    matrix(LAYER + "self_attn.v_proj.weight", "layers/attention/value"),
    matrix(LAYER + "self_attn.o_proj.weight", "layers/attention/out"),
    vector(LAYER + "post_attention_layernorm.weight", "layers/mlp_norm/scale"),
    matrix(LAYER + "mlp.gate_proj.weight", "layers/mlp/gate"),
    matrix(LAYER + "mlp.up_proj.weight", "layers/mlp/up"),
    matrix(LAYER + "mlp.down_proj.weight", "layers/mlp/down"),
    vector("model.norm.weight", "final_norm/scale"),
    matrix("lm_head.weight", "lm_head"),
)

HF = register(
    HfFamily(
        name="llama",
        architectures={"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral"},
        prefix="model.",
        from_hf=from_hf,
        to_hf=to_hf,
        table=TABLE,
    )
)
