"""A LLaMA in NumPy's float64, to tell which of two float32 results is off, and by how much."""

import jax
import numpy as np

from tulu_jax.ops import rotary_rates


def exact_logits(config, params, tokens):
    """Logits [B, T, V] of one conversation a row; rotary angles are float32, as in every model."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    angles = np.arange(tokens.shape[1], dtype=np.float32)[:, None] * rotary_rates(
        config.head_dim, config.rope_theta
    )
    turn = np.exp(1j * angles.astype(np.float64))[:, None]
    x = params["embedding"][tokens]
    for layer in range(config.num_layers):
        own = jax.tree.map(lambda leaf, i=layer: leaf[i], params["layers"])
        h = rms(config, x, own["attention_norm"])
        x = x + attention(config, h, own["attention"], turn)
        h = rms(config, x, own["mlp_norm"])
        gate = h @ own["mlp"]["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ own["mlp"]["up"])) @ own["mlp"]["down"]
    x = rms(config, x, params["final_norm"])
    return x @ (params["embedding"].T if config.tie_embeddings else params["lm_head"])


def rms(config, x, norm):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * norm["scale"]


def attention(config, h, own, turn):
    query, key, value = (np.einsum("btd,dnh->btnh", h, own[x]) for x in ("query", "key", "value"))
    query, key = turned(query, turn), turned(key, turn)
    group, length = config.num_heads // config.num_kv_heads, h.shape[1]
    key, value = np.repeat(key, group, 2), np.repeat(value, group, 2)
    scores = np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(config.head_dim)
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    mixed = np.einsum("bnts,bsnh->btnh", share, value)
    return np.einsum("btnh,nhd->btd", mixed, own["out"])


def turned(x, turn):
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate([z.real, z.imag], -1)
