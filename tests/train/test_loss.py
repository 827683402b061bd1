"""The shift and the weights of the loss, on the docstrings' arrays and against float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.small import MODEL, random_params, two_a_row
from tulu_jax.models import ComputeConfig, forward
from tulu_jax.train.loss import loss_weights, position_nll, targets_and_mask, weighted_loss

COMPUTE = ComputeConfig()


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
    mask = jnp.array([[1.0, 1, 1, 0], [1, 0, 0, 0]])
    token = loss_weights(mask, normalization="token", paper_rows=1)
    np.testing.assert_allclose(token, mask / 4)
    paper = loss_weights(mask, normalization="paper", paper_rows=1)
    np.testing.assert_allclose(paper, [[1 / 6, 1 / 6, 1 / 6, 0], [1 / 2, 0, 0, 0]])


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
        loss = weighted_loss(MODEL, COMPUTE, params, batch, weights)
        np.testing.assert_allclose(loss, value, rtol=2e-6)
    got, got_mask = position_nll(MODEL, COMPUTE, params, batch)
    np.testing.assert_allclose(got, nll * mask, atol=2e-5)
    np.testing.assert_array_equal(got_mask, mask)


@pytest.mark.parametrize("normalization", ["token", "paper"])
def test_batch_without_loss_gives_zero_and_zero_gradients(params, normalization):
    batch = jax.tree.map(jnp.asarray, two_a_row()) | {"loss_mask": jnp.zeros((8, 32), jnp.int32)}
    weights = loss_weights(targets_and_mask(batch)[1], normalization=normalization, paper_rows=2)
    value_and_grad = jax.jit(jax.value_and_grad(partial(weighted_loss, MODEL, COMPUTE)))
    loss, grads = value_and_grad(params, batch, weights)
    assert loss == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_group_without_loss_counts_as_zero():
    mask = jnp.array([[1.0, 1], [0, 0]])
    weights = loss_weights(mask, normalization="paper", paper_rows=1)
    np.testing.assert_allclose(weights, [[1 / 4, 1 / 4], [0, 0]])
