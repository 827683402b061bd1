"""The shift and the weights of the loss, on the docstrings' arrays and against float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole import forward

from train.small import MODEL, random_params, two_a_row
from tulu_jax.models import ComputeConfig
from tulu_jax.train.loss import (
    NORMALIZATIONS,
    loss_weights,
    position_nll,
    targets_and_mask,
    weighted_loss,
)

COMPUTE = ComputeConfig()
GRADIENTS = jax.jit(jax.value_and_grad(partial(weighted_loss, MODEL, COMPUTE)))


@pytest.fixture(scope="module")
def params():
    return random_params()


def test_shift_docstring_example():
    batch = {
        "tokens": jnp.array([[1, 7, 8, 2, 1, 5, 9, 2]]),
        "loss_mask": jnp.array([[0, 0, 1, 1, 0, 0, 1, 1]]),
        "segment_ids": jnp.array([[1, 1, 1, 1, 2, 2, 2, 2]]),
    }
    targets, mask = targets_and_mask(batch)
    assert targets.tolist() == [[7, 8, 2, 1, 5, 9, 2, 0]]
    assert mask.tolist() == [[0, 1, 1, 0, 0, 1, 1, 0]]


def test_first_token_of_a_conversation_is_never_predicted_from_the_one_before():
    batch = {
        "tokens": jnp.array([[5, 6, 7, 8]]),
        "loss_mask": jnp.ones((1, 4), int),
        "segment_ids": jnp.array([[1, 1, 2, 2]]),
    }
    assert targets_and_mask(batch)[1].tolist() == [[1, 0, 1, 0]]


def test_padding_never_carries_loss():
    batch = {
        "tokens": jnp.array([[5, 6, 0, 0]]),
        "loss_mask": jnp.ones((1, 4), int),
        "segment_ids": jnp.array([[1, 1, 0, 0]]),
    }
    assert targets_and_mask(batch)[1].tolist() == [[1, 0, 0, 0]]


def test_weights_docstring_example():
    mask = jnp.array([[1.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    paper = np.array([[1 / 6, 1 / 6, 1 / 6, 0], [1 / 2, 0, 0, 0], [0] * 4, [0] * 4])
    expected = {"token": mask / 4, "paper": paper, "paper_accumulate": paper / 2}
    assert set(expected) == set(NORMALIZATIONS)
    for normalization, weights in expected.items():
        got = loss_weights(mask, normalization=normalization, paper_rows=1)
        np.testing.assert_allclose(got, weights)


def float64_nll(params, batch):
    logits = np.float64(
        forward(MODEL, params, batch["tokens"], batch["segment_ids"], batch["positions"])
    )
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = np.roll(batch["tokens"], -1, axis=1)
    same = np.roll(batch["segment_ids"], -1, axis=1) == batch["segment_ids"]
    mask = (np.roll(batch["loss_mask"], -1, axis=1) > 0) & same & (batch["segment_ids"] > 0)
    mask[:, -1] = False
    return -np.take_along_axis(log_p, targets[..., None], -1)[..., 0], mask


def test_token_and_paper_loss_equal_float64(params):
    batch = two_a_row()
    nll, mask = float64_nll(params, batch)
    expected = {"token": nll[mask].mean()}
    groups = [nll[i : i + 2][mask[i : i + 2]].mean() for i in range(0, len(nll), 2)]
    expected["paper"] = np.mean(groups)
    assert abs(expected["token"] - expected["paper"]) > 1e-3
    for normalization, value in expected.items():
        weights = loss_weights(
            targets_and_mask(batch)[1], normalization=normalization, paper_rows=2
        )
        loss, _ = GRADIENTS(params, batch, weights)
        np.testing.assert_allclose(loss, value, rtol=2e-6)
    got, got_mask = jax.jit(partial(position_nll, MODEL, COMPUTE))(params, batch)
    np.testing.assert_allclose(got, nll * mask, atol=2e-5)
    np.testing.assert_array_equal(got_mask, mask)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_batch_without_loss_gives_zero_and_zero_gradients(params, normalization):
    batch = jax.tree.map(jnp.asarray, two_a_row()) | {"loss_mask": jnp.zeros((8, 32), jnp.int32)}
    weights = loss_weights(targets_and_mask(batch)[1], normalization=normalization, paper_rows=2)
    loss, grads = GRADIENTS(params, batch, weights)
    assert loss == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_loss_and_gradient_of_a_part_batch(params):
    """The last batch of an epoch: 3 of 8 rows. `paper` is the mean of the micro-batches there are;
    torch's accumulation over 4 micro-batches, two of them empty, gives half of that."""
    whole = jax.tree.map(np.asarray, two_a_row())
    part = {name: np.where(np.arange(8)[:, None] < 3, rows, 0) for name, rows in whole.items()}
    nll, mask = float64_nll(params, part)
    means = [nll[i : i + 2][mask[i : i + 2]].mean() for i in (0, 2)]
    gradients = {}
    for normalization, value in (("paper", np.mean(means)), ("paper_accumulate", sum(means) / 4)):
        weights = loss_weights(targets_and_mask(part)[1], normalization=normalization, paper_rows=2)
        loss, gradients[normalization] = GRADIENTS(params, part, weights)
        np.testing.assert_allclose(loss, value, rtol=2e-6)
    for one, half in zip(*map(jax.tree.leaves, gradients.values()), strict=True):
        np.testing.assert_allclose(half, one / 2, rtol=1e-4, atol=1e-7)
