"""Conversations packed in rows train as the same conversations in rows of their own."""

from functools import partial

import jax
import numpy as np
import pytest

from train.small import MODEL, conversations, random_params, small_store
from tulu_jax.data.rows import make_rows
from tulu_jax.models import ComputeConfig
from tulu_jax.train.loss import loss_weights, position_nll, targets_and_mask, weighted_loss

COMPUTE = ComputeConfig()


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """The same 24 conversations, best fit and one a row."""
    store = small_store(tmp_path_factory.mktemp("packed") / "store", count=24)
    found = {}
    for packing in ("best_fit", "padded"):
        rows = make_rows([store], row_length=32, packing=packing, epochs=1)
        found[packing] = rows.batch(0, rows.num_rows)
    assert len(found["best_fit"]["tokens"]) < 20 < len(found["padded"]["tokens"])
    assert found["best_fit"]["segment_ids"].max() > 1
    return found


@jax.jit
def loss_and_gradients(params, batch):
    _, mask = targets_and_mask(batch)
    weights = loss_weights(mask, normalization="token", paper_rows=1)
    loss_of = partial(weighted_loss, MODEL, COMPUTE)
    nll, mask = position_nll(MODEL, COMPUTE, params, batch)
    return *jax.value_and_grad(loss_of)(params, batch, weights), nll, mask


def nll_by_conversation(batch, nll, mask):
    """Total nll of each conversation, by its tokens."""
    totals = {}
    for row in range(len(nll)):
        for number in range(1, batch["segment_ids"][row].max() + 1):
            here = batch["segment_ids"][row] == number
            key = tuple(batch["tokens"][row][here].tolist())
            totals[key] = float((nll[row] * mask[row])[here].sum())
    return totals


def test_loss_and_gradients_are_equal(batches):
    params = random_params()
    packed, apart = (
        jax.device_get(loss_and_gradients(params, batches[name])) for name in ("best_fit", "padded")
    )
    np.testing.assert_allclose(packed[0], apart[0], rtol=1e-5)
    for left, right in zip(jax.tree.leaves(packed[1]), jax.tree.leaves(apart[1]), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    one = nll_by_conversation(batches["best_fit"], *packed[2:])
    two = nll_by_conversation(batches["padded"], *apart[2:])
    assert len(one) == 24 and one.keys() == two.keys()
    assert one == pytest.approx(two, rel=1e-5)
    assert {tuple(example.tokens.tolist()) for example in conversations(24)} == set(one)


def test_a_conversation_does_not_see_its_neighbours(batches):
    params, batch = random_params(), batches["best_fit"]
    first = batch["segment_ids"] == 1
    changed = batch | {"tokens": np.where(first, 63 - batch["tokens"], batch["tokens"])}
    before, after = (loss_and_gradients(params, rows)[2] for rows in (batch, changed))
    others = batch["segment_ids"] > 1
    np.testing.assert_array_equal(np.asarray(before)[others], np.asarray(after)[others])
    assert not np.allclose(np.asarray(before)[first], np.asarray(after)[first])
