"""Our LLaMA against transformers', from the smallest part to the gradients of the whole."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.llama import modeling_llama

from tulu_jax import models
from tulu_jax.models.llama import Layer, Where
from tulu_jax.ops import apply_rotary, rms_norm, rotary_angles

from .reference import CONFIGS, max_diff, random_params, random_tokens, to_torch, torch_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NORM, EXACT = 1e-6, 1e-4

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options that halve the time of these tests, most of which is compilation."""

forward = jax.jit(models.forward, static_argnums=0, compiler_options=QUICK)


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    config = CONFIGS[request.param]
    params = random_params(config)
    return config, params, torch_model(config, params)


def layer_of(params, layer):
    return jax.tree.map(lambda leaf: leaf[layer], params["layers"])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_norm(pair, scale):
    config, params, model = pair
    x = np.random.default_rng(0).normal(size=(2, 5, config.d_model)).astype(np.float32) * scale
    ours = rms_norm(jnp.asarray(x), jnp.asarray(params["final_norm"]["scale"]), eps=config.norm_eps)
    assert max_diff(ours, model.model.norm(torch.tensor(x))) <= NORM * max(1, scale)


def test_norm_with_the_wrong_epsilon_shows(pair):
    config, params, model = pair
    x = np.full((1, 1, config.d_model), 1e-3, np.float32)
    ours = rms_norm(
        jnp.asarray(x), jnp.asarray(params["final_norm"]["scale"]), eps=config.norm_eps * 10
    )
    assert max_diff(ours, model.model.norm(torch.tensor(x))) > 1e-2


def test_rotary(pair):
    config, _, model = pair
    rng = np.random.default_rng(0)
    positions = rng.integers(0, config.max_length, (2, 7))
    x = rng.normal(size=(2, 7, config.num_heads, config.head_dim)).astype(np.float32)
    cos, sin = rotary_angles(
        jnp.asarray(positions), head_dim=config.head_dim, theta=config.rope_theta
    )
    states = torch.zeros(2, 7, config.d_model)
    their_cos, their_sin = model.model.rotary_emb(states, torch.tensor(positions))
    theirs, _ = modeling_llama.apply_rotary_pos_emb(
        *[torch.tensor(x).transpose(1, 2)] * 2, their_cos, their_sin
    )
    assert max_diff(np.concatenate([cos, cos], -1), their_cos) <= 1e-5
    assert max_diff(apply_rotary(jnp.asarray(x), cos, sin), theirs.transpose(1, 2)) <= 1e-5


def part_inputs(config, model):
    """States of one row, our `Where`, and transformers' rotary pair and causal mask."""
    length = 12
    x = np.random.default_rng(1).normal(size=(2, length, config.d_model)).astype(np.float32)
    positions = np.broadcast_to(np.arange(length), (2, length))
    cos, sin = rotary_angles(
        jnp.asarray(positions), head_dim=config.head_dim, theta=config.rope_theta
    )
    ones = jnp.ones((2, length), jnp.int32)
    where = Where(cos, sin, ones, ones, jnp.asarray(positions))
    angles = model.model.rotary_emb(torch.tensor(x), torch.tensor(positions.copy()))
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
    return x, where, angles, mask


def test_attention(pair):
    from tulu_jax.models.llama import Attention

    config, params, model = pair
    x, where, angles, mask = part_inputs(config, model)
    weights = {"params": layer_of(params, 0)["attention"]}
    ours, _ = jax.jit(Attention(config).apply)(weights, x, where, None)
    theirs = model.model.layers[0].self_attn(
        torch.tensor(x), position_embeddings=angles, attention_mask=mask
    )[0]
    assert max_diff(ours, theirs) <= EXACT


def test_block(pair):
    config, params, model = pair
    x, where, angles, mask = part_inputs(config, model)
    ours, _ = jax.jit(Layer(config).apply)({"params": layer_of(params, 1)}, x, None, where)
    theirs = model.model.layers[1](torch.tensor(x), position_embeddings=angles, attention_mask=mask)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    assert max_diff(ours, theirs) <= EXACT


def test_logits(pair):
    config, params, model = pair
    tokens = random_tokens(config, 3, 20)
    theirs = model(torch.tensor(tokens, dtype=torch.long)).logits
    assert max_diff(forward(config, params, tokens), theirs) <= EXACT


def test_logits_of_packed_and_padded_rows(pair):
    config, params, model = pair
    lengths = [9, 4, 6]
    texts = [random_tokens(config, 1, n, seed=n)[0] for n in lengths]
    apart = [model(torch.tensor(text[None], dtype=torch.long)).logits[0] for text in texts]
    pad = 5
    packed = np.concatenate([*texts, np.zeros(pad, np.int32)])[None]
    segments = np.concatenate([[i + 1] * n for i, n in enumerate(lengths)] + [[0] * pad])[None]
    ours = forward(config, params, packed, segments.astype(np.int32))
    assert np.isfinite(ours).all()
    assert max_diff(ours[0, :-pad], torch.cat(apart)) <= EXACT
    padded = np.stack([np.pad(text, (0, 12 - len(text))) for text in texts])
    mask = np.stack([np.arange(12) < n for n in lengths]).astype(np.int32)
    ours = forward(config, params, padded, mask)
    for row, n, theirs in zip(ours, lengths, apart, strict=True):
        assert max_diff(row[:n], theirs) <= EXACT


def our_loss(config, params, tokens, segments, weights):
    """Mean over weighted targets, and not across conversations."""
    logits = models.forward(config, params, tokens, segments)[:, :-1]
    nll = -jnp.take_along_axis(nn.log_softmax(logits), tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.sum(nll * weights[:, 1:]) / jnp.sum(weights[:, 1:])


def test_gradients_of_packed_rows(pair):
    config, params, model = pair
    lengths, rng = [9, 4, 6], np.random.default_rng(5)
    texts = [random_tokens(config, 1, n, seed=10 + n)[0] for n in lengths]
    masks = [rng.random(n) < 0.6 for n in lengths]
    for mask in masks:
        mask[0], mask[-1] = False, True
    count = int(sum(mask.sum() for mask in masks))
    model.zero_grad()
    their_loss = torch.zeros(())
    for text, mask in zip(texts, masks, strict=True):
        logits = model(torch.tensor(text[None], dtype=torch.long)).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(
            logits, torch.tensor(text[1:], dtype=torch.long), reduction="none"
        )
        their_loss = their_loss + (nll * torch.tensor(mask[1:])).sum() / count
    their_loss.backward()

    segments = np.concatenate([[i + 1] * n for i, n in enumerate(lengths)])[None].astype(np.int32)
    tokens, weights = np.concatenate(texts)[None], np.concatenate(masks)[None].astype(np.float32)
    loss_and_gradients = jax.jit(
        jax.value_and_grad(our_loss, argnums=1), static_argnums=0, compiler_options=QUICK
    )
    loss, gradients = loss_and_gradients(config, params, tokens, segments, weights)
    assert abs(float(loss) - their_loss.item()) <= 1e-5
    theirs = {name: weight.grad for name, weight in model.named_parameters()}
    ours = to_torch(config, gradients)
    assert set(ours) == set(theirs)
    worst = max(max_diff(ours[name], theirs[name]) for name in ours)
    assert worst <= EXACT
    assert min(float(gradient.abs().max()) for gradient in theirs.values()) > 1e-4
