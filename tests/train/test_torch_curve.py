"""Twenty steps from the same weights, batches and schedule in transformers with torch's AdamW."""

import jax
import numpy as np
import pytest
import torch
from parity.reference import to_torch, torch_model
from transformers import get_linear_schedule_with_warmup

from train.small import MODEL, conversations, layout_on, plan_on, random_params
from train.small import batch_of as rows_of
from tulu_jax.data.to_device import put_batch
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.optimizer import make_optimizer

STEPS, ROWS, PAPER_ROWS = 20, 8, 2
CONFIG = OptimizerConfig(learning_rate=1e-3, warmup_ratio=0.1, clip_norm=1.0)


@pytest.fixture(scope="module")
def batches():
    """Padded rows, one conversation each: what transformers' attention_mask can express."""
    examples = conversations(STEPS * ROWS, seed=7)
    return [
        rows_of([[example] for example in examples[i : i + ROWS]])
        for i in range(0, len(examples), ROWS)
    ]


def ours(batches, normalization):
    layout = layout_on(None)
    optimizer = make_optimizer(CONFIG, STEPS)
    losses, norms = [], []
    plan = plan_on(layout, optimizer, batch_size=ROWS, loss_normalization=normalization)
    assert plan.config.paper_rows == PAPER_ROWS
    with layout.activate():
        params = jax.tree.map(jax.device_put, random_params(), layout.params(MODEL))
        state, step = plan.start(params), plan.step()
        for batch in batches:
            state, metrics = step(state, put_batch(batch, layout.rows))
            losses.append(float(metrics["loss"]))
            norms.append(float(metrics["grad_norm"]))
    return losses, norms, to_torch(MODEL, jax.device_get(state.params))


def theirs(batches, normalization):
    model = torch_model(MODEL, random_params()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=CONFIG.learning_rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * STEPS), STEPS)
    rows = PAPER_ROWS if normalization == "paper" else ROWS
    losses, norms = [], []
    for batch in batches:
        total = 0.0
        for start in range(0, ROWS, rows):
            part = {
                name: torch.tensor(array[start : start + rows]).long()
                for name, array in batch.items()
            }
            out = model(
                input_ids=part["tokens"],
                attention_mask=(part["segment_ids"] > 0).long(),
                labels=torch.where(part["loss_mask"] > 0, part["tokens"], -100),
            )
            loss = out.loss * rows / ROWS
            loss.backward()
            total += loss.item()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip_norm)))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses, norms, dict(model.state_dict())


@pytest.mark.parametrize("normalization", ["token", "paper"])
def test_curve_equals_torch(batches, normalization):
    losses, norms, weights = ours(batches, normalization)
    their_losses, their_norms, their_weights = theirs(batches, normalization)
    assert sum(norm > CONFIG.clip_norm for norm in norms) > STEPS / 2
    np.testing.assert_allclose(losses, their_losses, rtol=1e-4)
    np.testing.assert_allclose(norms, their_norms, rtol=1e-3)
    start = to_torch(MODEL, random_params())
    moved, worst = 0.0, 0.0
    for name, tensor in weights.items():
        worst = max(worst, float((tensor - their_weights[name]).abs().max()))
        moved = max(moved, float((tensor - start[name]).abs().max()))
    assert worst <= 1e-3 < moved
    relative = np.max(np.abs(np.divide(losses, their_losses) - 1))
    print(f"{normalization}: losses differ by {relative:.1e} relative, weights by {worst:.1e}")
