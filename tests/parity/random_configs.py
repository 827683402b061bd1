"""One random model, ours and transformers', on one packed row.

Nothing is compiled as a whole: operations run one by one, and their compiled forms are shared by
all models with the same shapes, of which the strategies draw few, while all else is drawn freely.
The compiled models are compared in test_ladder.py.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from weights import random_params

from tulu_jax.checkpoint.hf.names import weights_of
from tulu_jax.models import ComputeConfig, forward

from .packed import PAD, conversations, gradient_differences, our_loss, their_loss
from .reference import divergence, max_diff, to_torch, torch_model

EXACT, CLOSE = 1e-4, 1e-3

NUM_MODELS = int(os.environ.get("TULU_RANDOM_MODELS", "100"))
"""Models of each family. The first of each shape compiles most of its operations, 1 to 4 s; the
rest take half a second each."""

RANDOM = settings(
    max_examples=NUM_MODELS,
    phases=(Phase.generate,),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def check_against_transformers(config, seed):
    """Logits, loss and every gradient in float32; bfloat16 logits by divergence; tensors exact."""
    params = random_params(config, seed)
    model = torch_model(config, params)
    check_there_and_back(config, params)
    rows = conversations(config, seed)
    expected, apart = their_loss(model, rows)
    with jax.disable_jit():
        gradient = jax.value_and_grad(our_loss, argnums=1, has_aux=True)
        (loss, logits), gradients = gradient(config, as_arrays(params), *map(jnp.asarray, rows[2:]))
        half = forward(
            config, params, rows.tokens, rows.segments, compute=ComputeConfig("bfloat16")
        )
    assert max_diff(logits[0, :-PAD], apart) <= EXACT
    assert abs(float(loss) - expected) <= 1e-5
    differences = gradient_differences(config, model, gradients)
    assert max(differences.values()) <= EXACT, differences
    assert divergence(half[0, :-PAD], apart) <= CLOSE


def as_arrays(params):
    return jax.tree.map(jnp.asarray, params)


def check_there_and_back(config, params):
    """Our weights from the tensors made of them are the same numbers, bit by bit."""
    tensors = {name: tensor.numpy() for name, tensor in to_torch(config, params).items()}
    for weight in weights_of(config):
        leaf = functools.reduce(lambda tree, key: tree[key], weight.path, params)
        layers = leaf if weight.per_layer else leaf[None]
        for name, layer in zip(weight.hf_names(config), layers, strict=True):
            assert np.array_equal(weight.from_hf(tensors[name], layer.shape), layer)
