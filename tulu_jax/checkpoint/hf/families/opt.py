"""OPT, 125M to 66B; the 350M has its norms after each part and projects its embedding."""

from __future__ import annotations

from typing import Any

from tulu_jax.checkpoint.hf.family import HfFamily, register
from tulu_jax.checkpoint.hf.fields import Fields
from tulu_jax.checkpoint.hf.weights import dense, layer_norm, matrix, table
from tulu_jax.models import OptConfig


def from_hf(fields: Fields) -> OptConfig:
    """The config that the fields describe.

    Raises:
      CheckpointError: naming the field that is missing, malformed or not supported.
    """
    fields.only("activation_function", "relu")
    fields.only("layer_norm_elementwise_affine", True)
    d_model = fields.integer("hidden_size")
    norm_first = fields.flag("do_layer_norm_before", default=True)
    removed = fields.flag("_remove_final_layer_norm", default=False)
    return OptConfig(
        vocab_size=fields.integer("vocab_size"),
        d_model=d_model,
        d_ff=fields.integer("ffn_dim"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=fields.integer("num_attention_heads"),
        max_length=fields.integer("max_position_embeddings"),
        word_dim=fields.integer("word_embed_proj_dim", default=d_model),
        norm_first=norm_first,
        final_norm=norm_first and not removed,
        use_bias=fields.flag("enable_bias", default=True),
        tie_embeddings=fields.flag("tie_word_embeddings", default=True),
        bos_id=fields.token("bos_token_id", default=2),
        eos_id=fields.token("eos_token_id", default=2, required=True),
        pad_id=fields.pad_id(default=1),
    )


def to_hf(config: OptConfig) -> dict[str, Any]:
    """The family's own fields of `config.json`."""
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "word_embed_proj_dim": config.word_dim,
        "ffn_dim": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.max_length,
        "activation_function": "relu",
        "do_layer_norm_before": config.norm_first,
        "_remove_final_layer_norm": config.norm_first and not config.final_norm,
        "layer_norm_elementwise_affine": True,
        "enable_bias": config.use_bias,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "init_std": 0.02,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }


DECODER = "model.decoder."
LAYER = DECODER + "layers.{layer}."

TABLE = (
    table(DECODER + "embed_tokens.weight", "embedding"),
    table(DECODER + "embed_positions.weight", "position_embedding"),
    matrix(DECODER + "project_in.weight", "project_in"),
    matrix(DECODER + "project_out.weight", "project_out"),
    *layer_norm(DECODER + "final_layer_norm", "final_norm"),
    *layer_norm(LAYER + "self_attn_layer_norm", "layers/attention_norm"),
    *dense(LAYER + "self_attn.q_proj", "layers/attention/query"),
    *dense(LAYER + "self_attn.k_proj", "layers/attention/key"),
    *dense(LAYER + "self_attn.v_proj", "layers/attention/value"),
    *dense(LAYER + "self_attn.out_proj", "layers/attention/out"),
    *layer_norm(LAYER + "final_layer_norm", "layers/mlp_norm"),
    *dense(LAYER + "fc1", "layers/mlp/up"),
    *dense(LAYER + "fc2", "layers/mlp/down"),
    matrix("lm_head.weight", "lm_head"),
)

HF = register(
    HfFamily(
        name="opt",
        architectures={"OPTForCausalLM": "opt"},
        prefix="model.",
        from_hf=from_hf,
        to_hf=to_hf,
        table=TABLE,
    )
)
