"""One random model, ours and transformers', on one packed row.

A compiled model serves all that have its shapes: the numbers of a config that no shape depends on
(the norms' epsilon, the rotary rates) are among its arguments, and so hundreds of models take a few
dozen compilations, not one each. Programs that hold their numbers are compared in test_ladder.py.
"""

import dataclasses
import functools
import os
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from thorough import sample
from weights import random_params, with_plain_numbers

from tulu_jax.checkpoint.hf.names import weights_of
from tulu_jax.models import ComputeConfig, forward
from tulu_jax.models.families import llama, neox
from tulu_jax.ops import rotary_angles

from .packed import PAD, conversations, gradient_differences, our_loss, their_loss
from .reference import divergence, max_diff, to_torch, torch_model

EXACT, CLOSE = 1e-4, 1e-3

NUM_MODELS = int(os.environ.get("TULU_RANDOM_MODELS", sample(160)))
"""Models of each family. The first of each shape takes a second to compile, the rest 0.05 s."""

RANDOM = settings(
    max_examples=NUM_MODELS,
    phases=(Phase.generate,),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

MODULES = {"llama": llama, "neox": neox}
"""Where the rates of a family's config are made."""


class Numbers(NamedTuple):
    """What a compiled model is given of its config; None where the family has no such number."""

    norm_eps: np.float32 | None
    rates: np.ndarray | None


class Given(float):
    """An argument of the program in the place of a config's number.

    Were it read as the number that it seems to be, every norm would give next to nothing.
    """

    def __new__(cls, value):
        given = super().__new__(cls, 1e9)
        given.value = value
        return given

    def __jax_array__(self):
        return self.value


def check_against_transformers(config, seed):
    """Logits, loss and every gradient in float32; bfloat16 logits by divergence; tensors exact."""
    params = random_params(config, seed)
    model = torch_model(config, params)
    check_there_and_back(config, params)
    rows = conversations(config, seed)
    expected, apart = their_loss(model, rows)
    shapes, numbers = with_plain_numbers(config), numbers_of(config)
    loss, logits, gradients, half = compiled(shapes, numbers, params, *rows[2:])
    assert max_diff(logits[0, :-PAD], apart) <= EXACT
    assert abs(float(loss) - expected) <= 1e-5
    differences = gradient_differences(config, model, gradients)
    assert max(differences.values()) <= EXACT, differences
    assert divergence(half[0, :-PAD], apart) <= CLOSE


def numbers_of(config) -> Numbers:
    """The numbers that no shape depends on; rates by the way from config to angles."""
    module = MODULES.get(config.family)
    if module is None:
        return Numbers(None, None)
    with mock.patch.object(module, "rotary_angles", lambda _, rates: (rates, rates)):
        return Numbers(
            np.float32(config.norm_eps), module.rotary(config, jax.numpy.zeros((1, 1), int))[0]
        )


@functools.partial(jax.jit, static_argnums=0)
def compiled(config, numbers, params, tokens, segments, weights):
    """Loss, logits and gradients in float32, and logits in bfloat16."""

    def angles(positions, rates):
        del rates
        return rotary_angles(positions, numbers.rates)

    if numbers.norm_eps is not None:
        config = dataclasses.replace(config, norm_eps=Given(numbers.norm_eps))
    gradient = jax.value_and_grad(our_loss, argnums=1, has_aux=True)
    with (
        mock.patch.object(llama, "rotary_angles", angles),
        mock.patch.object(neox, "rotary_angles", angles),
    ):
        (loss, logits), gradients = gradient(config, params, tokens, segments, weights)
        half = forward(config, params, tokens, segments, compute=ComputeConfig("bfloat16"))
    return loss, logits, gradients, half


def check_there_and_back(config, params):
    """Our weights from the tensors made of them are the same numbers, bit by bit."""
    tensors = {name: tensor.numpy() for name, tensor in to_torch(config, params).items()}
    for weight in weights_of(with_plain_numbers(config)):
        leaf = functools.reduce(lambda tree, key: tree[key], weight.path, params)
        layers = leaf if weight.tensor.per_layer else leaf[None]
        for name, layer in zip(weight.tensor.hf_names(config), layers, strict=True):
            assert np.array_equal(weight.from_hf(tensors[name], layer.shape), layer)
