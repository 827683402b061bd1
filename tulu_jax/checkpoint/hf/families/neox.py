"""GPT-NeoX-20B and Pythia, 70M to 12B: query, key and value lie in one tensor, head by head."""

from __future__ import annotations

from typing import Any

from tulu_jax.checkpoint.hf.family import HfFamily, register
from tulu_jax.checkpoint.hf.fields import Fields
from tulu_jax.checkpoint.hf.weights import by_head, dense, layer_norm, matrix, table
from tulu_jax.models import NeoxConfig

DEFAULT_ROPE_THETA = 10_000.0
DEFAULT_ROTARY_SHARE = 0.25


def from_hf(fields: Fields) -> NeoxConfig:
    """The config that the fields describe.

    Raises:
      CheckpointError: naming the field that is missing, malformed or not supported.
    """
    fields.only("hidden_act", "gelu")
    theta, share = _rope(fields)
    return NeoxConfig(
        vocab_size=fields.integer("vocab_size"),
        d_model=fields.integer("hidden_size"),
        d_ff=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=fields.integer("num_attention_heads"),
        max_length=fields.integer("max_position_embeddings"),
        norm_eps=fields.number("layer_norm_eps"),
        rotary_share=share,
        rope_theta=theta,
        parallel_residual=fields.flag("use_parallel_residual", default=True),
        attention_bias=fields.flag("attention_bias", default=True),
        tie_embeddings=fields.flag("tie_word_embeddings", default=False),
        bos_id=fields.token("bos_token_id", default=0),
        eos_id=fields.token("eos_token_id", default=2, required=True),
        pad_id=fields.pad_id(),
    )


def _rope(fields: Fields) -> tuple[float, float]:
    """Base of the rotary rates and the share of channels that turn, in all three spellings."""
    thetas = {n: fields.take(n, default=None) for n in ("rotary_emb_base", "rope_theta")}
    shares = {n: fields.take(n, default=None) for n in ("rotary_pct", "partial_rotary_factor")}
    for name in ("rope_scaling", "rope_parameters"):
        rope = fields.take(name, default=None)
        if rope is None:
            continue
        known = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
        plain = isinstance(rope, dict) and set(rope) <= known
        if not plain or rope.get("rope_type", rope.get("type", "default")) != "default":
            raise fields.refusal(name, rope, expected="null, or a dictionary of rope_type default")
        thetas[f"{name}.rope_theta"] = rope.get("rope_theta")
        shares[f"{name}.partial_rotary_factor"] = rope.get("partial_rotary_factor")
    theta, share = fields.agreed(thetas), fields.agreed(shares)
    return (
        fields.as_number("rotary_emb_base", DEFAULT_ROPE_THETA if theta is None else theta),
        fields.as_number("rotary_pct", DEFAULT_ROTARY_SHARE if share is None else share),
    )


def to_hf(config: NeoxConfig) -> dict[str, Any]:
    """The family's own fields of `config.json`."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": "gelu",
        "max_position_embeddings": config.max_length,
        "layer_norm_eps": config.norm_eps,
        "rotary_pct": config.rotary_share,
        "rotary_emb_base": config.rope_theta,
        "partial_rotary_factor": config.rotary_share,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "use_parallel_residual": config.parallel_residual,
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "classifier_dropout": 0.1,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }


LAYER = "gpt_neox.layers.{layer}."
ATTENTION = "layers/attention/"

TABLE = (
    table("gpt_neox.embed_in.weight", "embedding"),
    *layer_norm(LAYER + "input_layernorm", "layers/attention_norm"),
    *layer_norm(LAYER + "post_attention_layernorm", "layers/mlp_norm"),
    by_head(
        LAYER + "attention.query_key_value.weight",
        *(ATTENTION + part for part in ("query", "key", "value")),
    ),
    by_head(
        LAYER + "attention.query_key_value.bias",
        *(ATTENTION + part for part in ("query_bias", "key_bias", "value_bias")),
    ),
    *dense(LAYER + "attention.dense", "layers/attention/out"),
    *dense(LAYER + "mlp.dense_h_to_4h", "layers/mlp/up"),
    *dense(LAYER + "mlp.dense_4h_to_h", "layers/mlp/down"),
    *layer_norm("gpt_neox.final_layer_norm", "final_norm"),
    matrix("embed_out.weight", "lm_head"),
)

HF = register(
    HfFamily(
        name="neox",
        architectures={"GPTNeoXForCausalLM": "gpt_neox"},
        prefix="gpt_neox.",
        from_hf=from_hf,
        to_hf=to_hf,
        table=TABLE,
    )
)
