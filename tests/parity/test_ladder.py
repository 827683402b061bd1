"""Our models against transformers', from the smallest part to the gradients of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import modeling_llama
from weights import random_params
from whole import forward, hidden_states

from tulu_jax.generate.steps import init_layers
from tulu_jax.generate.weights import split_weights
from tulu_jax.models import Cache, ComputeConfig, Place
from tulu_jax.models.families import llama, neox, opt
from tulu_jax.models.layers import Attention, AttentionContext
from tulu_jax.ops import apply_rotary, layer_norm, rms_norm, rotary_rates, stretch_llama3
from tulu_jax.ops.attention.cached import BLOCK

from .packed import PAD, conversations, gradient_differences, our_loss, their_loss
from .reference import CONFIGS, divergence, max_diff, random_tokens, torch_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NORM, EXACT, CLOSE = 1e-6, 1e-4, 1e-3

MODULES = {"llama": llama, "opt": opt, "neox": neox}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    config = CONFIGS[request.param]
    params = random_params(config)
    return config, params, torch_model(config, params)


def decoder_of(config, model):
    """transformers' module that holds the layers."""
    if config.family == "neox":
        return model.gpt_neox
    return model.model.decoder if config.family == "opt" else model.model


def attention_of(layer):
    """transformers' attention of a layer."""
    return layer.attention if hasattr(layer, "attention") else layer.self_attn


def norm_of(config, layer):
    """transformers' norm before a layer's attention."""
    return layer.self_attn_layer_norm if config.family == "opt" else layer.input_layernorm


def layer_of(params, layer):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[layer]), params["layers"])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_norm(pair, scale):
    config, params, model = pair
    x = np.random.default_rng(0).normal(size=(2, 5, config.d_model)).astype(np.float32) * scale
    weights = layer_of(params, 0)["attention_norm"]
    norm = rms_norm if config.family == "llama" else layer_norm
    ours = norm(jnp.asarray(x), **weights, eps=config.norm_eps)
    theirs = norm_of(config, decoder_of(config, model).layers[0])
    assert max_diff(ours, theirs(torch.tensor(x))) <= NORM * max(1, scale)


def test_norm_with_the_wrong_epsilon_shows(pair):
    config, params, model = pair
    x = np.random.default_rng(0).normal(size=(1, 2, config.d_model)).astype(np.float32) * 1e-3
    weights = layer_of(params, 0)["attention_norm"]
    norm = rms_norm if config.family == "llama" else layer_norm
    ours = norm(jnp.asarray(x), **weights, eps=config.norm_eps * 10)
    theirs = norm_of(config, decoder_of(config, model).layers[0])
    assert max_diff(ours, theirs(torch.tensor(x))) > 1e-2


def test_rotary(pair):
    config, _, model = pair
    if config.family == "opt":
        pytest.skip("its positions are learned")
    rng = np.random.default_rng(0)
    positions = rng.integers(0, config.max_length, (2, 7))
    x = rng.normal(size=(2, 7, config.num_heads, config.head_dim)).astype(np.float32)
    cos, sin = MODULES[config.family].rotary(config, jnp.asarray(positions))
    states = torch.zeros(2, 7, config.d_model)
    rotary_emb = decoder_of(config, model).rotary_emb
    their_cos, their_sin = rotary_emb(states, torch.tensor(positions))
    width = their_cos.shape[-1]
    turned = torch.tensor(x[..., :width]).transpose(1, 2)
    theirs, _ = modeling_llama.apply_rotary_pos_emb(turned, turned, their_cos, their_sin)
    assert max_diff(np.concatenate([cos, cos], -1), their_cos) <= 1e-5
    ours = apply_rotary(jnp.asarray(x), cos, sin)
    assert max_diff(ours[..., :width], theirs.transpose(1, 2)) <= 1e-5
    assert np.array_equal(ours[..., width:], x[..., width:])


@pytest.mark.parametrize(
    "numbers", [(8.0, 1.0, 4.0, 8192), (3.7, 0.6, 5.1, 100), (32.0, 1.0, 4.0, 24)]
)
def test_scaled_rates_are_the_same_bits(numbers):
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_length")
    given = dict(zip(names, numbers, strict=True))
    base = 1.0 / (5e5 ** (torch.arange(0, 128, 2, dtype=torch.float) / 128))
    parameters = {**given, "rope_type": "llama3", "rope_theta": 5e5}
    parameters["original_max_position_embeddings"] = parameters.pop("original_length")
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=1, max_position_embeddings=2**17,
        rope_parameters=parameters,
    )  # fmt: skip
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    np.testing.assert_array_equal(stretch_llama3(base.numpy(), **given), theirs.numpy())
    assert np.mean(rotary_rates(128, 5e5) == base.numpy()) > 0.95


def part_inputs(config, model):
    """States of two rows, our context, and what transformers calls its parts with."""
    length = 12
    x = np.random.default_rng(1).normal(size=(2, length, config.d_model)).astype(np.float32)
    positions = np.broadcast_to(np.arange(length), (2, length))
    ones = jnp.ones((2, length), jnp.int32)
    where = AttentionContext(ones)
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
    given = {"attention_mask": mask}
    if config.family != "opt":
        rotary = MODULES[config.family].rotary(config, jnp.asarray(positions))
        where = where._replace(rotary=rotary)
        rotary_emb = decoder_of(config, model).rotary_emb
        given["position_embeddings"] = rotary_emb(torch.tensor(x), torch.tensor(positions.copy()))
    return x, where, given


def has_bias(config):
    return getattr(config, "use_bias", False) or getattr(config, "attention_bias", False)


def test_attention(pair):
    config, params, model = pair
    x, where, given = part_inputs(config, model)
    weights = {"params": layer_of(params, 0)["attention"]}
    ours = Attention(config.num_heads, config.num_kv_heads, config.head_dim, has_bias(config))
    mixed, _ = jax.jit(lambda weights, x: ours.apply(weights, x, where, None))(weights, x)
    theirs = attention_of(decoder_of(config, model).layers[0])(torch.tensor(x), **given)[0]
    assert max_diff(mixed, theirs) <= EXACT


def test_block(pair):
    config, params, model = pair
    x, where, given = part_inputs(config, model)
    ours = config.decoder(ComputeConfig()).layer(config)
    weights = {"params": layer_of(params, 1)}
    states, _ = jax.jit(lambda weights, x: ours.apply(weights, x, None, where))(weights, x)
    theirs = decoder_of(config, model).layers[1](torch.tensor(x), **given)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    assert max_diff(states, theirs) <= EXACT


def test_logits(pair):
    config, params, model = pair
    tokens = random_tokens(config, 3, 20)
    theirs = model(torch.tensor(tokens, dtype=torch.long)).logits
    assert max_diff(forward(config, params, tokens), theirs) <= EXACT


def test_bfloat16_logits(pair):
    config, params, model = pair
    tokens = random_tokens(config, 3, 20)
    theirs = model(torch.tensor(tokens, dtype=torch.long)).logits
    half = forward(config, params, tokens, compute=ComputeConfig("bfloat16"))
    assert 0 < divergence(half, theirs) <= CLOSE


def test_logits_of_padded_rows(pair):
    config, params, model = pair
    texts = conversations(config).texts
    padded = np.stack([np.pad(text, (0, 20 - len(text))) for text in texts])
    mask = np.stack([np.arange(20) < len(text) for text in texts]).astype(np.int32)
    ours = forward(config, params, padded, mask)
    for row, text in zip(ours, texts, strict=True):
        theirs = model(torch.tensor(text[None], dtype=torch.long)).logits[0]
        assert max_diff(row[: len(text)], theirs) <= EXACT


def test_packed_rows_and_their_gradients(pair):
    config, params, model = pair
    rows = conversations(config, seed=5)
    expected, apart = their_loss(model, rows)
    run = jax.jit(
        jax.value_and_grad(our_loss, argnums=1, has_aux=True),
        static_argnums=0,
    )
    (loss, logits), gradients = run(config, params, rows.tokens, rows.segments, rows.weights)
    assert np.isfinite(logits).all()
    assert max_diff(logits[0, :-PAD], apart) <= EXACT
    assert abs(float(loss) - expected) <= 1e-5
    assert max(gradient_differences(config, model, gradients).values()) <= EXACT
    largest = [float(weight.grad.abs().max()) for weight in model.parameters()]
    assert sorted(largest)[-2] > 1e-4


@pytest.mark.parametrize("name", ["gqa", "opt", "neox"])
def test_generation_cache_is_of_every_family(name):
    """A piece, then one token at a time through the cache give the states of the whole row.

    test_generate.py has the engine generate with each config.
    """
    config = CONFIGS[name]
    params = random_params(config)
    tokens = random_tokens(config, 2, 7)
    ones, slots = np.ones_like(tokens), np.tile(np.arange(7, dtype=np.int32), (2, 1))
    model, weights = config.decoder(ComputeConfig()), split_weights(config, params, "float32")
    cached = init_layers(config, 2, BLOCK, "float32")

    def run(piece, slot, row, cached):
        place = Place(jnp.asarray(slot), jnp.ones(len(piece), bool), row)
        positions = jnp.asarray(slot)[:, None] + jnp.arange(piece.shape[1])
        cache = Cache(weights.layers, cached, place)
        return model.apply(weights.outer, piece, jnp.ones_like(piece), positions, cache)

    run = jax.jit(run)
    whole = hidden_states(config, params, tokens, ones, slots)
    for row in range(2):
        piece = jnp.asarray(tokens[row : row + 1, :4])
        states, cached = run(piece, np.zeros(1, np.int32), np.int32(row), cached)
        assert max_diff(states[0], whole[row, :4]) <= 1e-5
    for at in range(4, 7):
        column = jnp.asarray(tokens[:, at : at + 1])
        states, cached = run(column, np.full(2, at, np.int32), None, cached)
        assert max_diff(states[:, 0], whole[:, at]) <= 1e-5
