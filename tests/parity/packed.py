"""Three conversations as one packed row, and their loss by both sides."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import torch

from tulu_jax import models

from .reference import max_diff, random_tokens, to_torch

LENGTHS = (9, 4, 6)
PAD = 2


class Rows(NamedTuple):
    """The conversations apart, and in one row with padding at its end."""

    texts: list[np.ndarray]
    masks: list[np.ndarray]
    tokens: np.ndarray
    segments: np.ndarray
    weights: np.ndarray


def conversations(config, seed=0) -> Rows:
    """Random tokens; about 60 per cent of them carry loss."""
    rng = np.random.default_rng(seed)
    texts = [random_tokens(config, 1, n, seed=seed + n)[0] for n in LENGTHS]
    masks = [rng.random(n) < 0.6 for n in LENGTHS]
    for mask in masks:
        mask[0], mask[-1] = False, True
    pad = np.zeros(PAD, np.int32)
    segments = [np.full(n, i + 1, np.int32) for i, n in enumerate(LENGTHS)]
    return Rows(
        texts,
        masks,
        np.concatenate([*texts, pad])[None],
        np.concatenate([*segments, pad])[None],
        np.concatenate([*masks, pad])[None].astype(np.float32),
    )


def our_loss(config, params, tokens, segments, weights):
    """Mean over weighted targets, and not across conversations; and the logits."""
    logits = models.forward(config, params, tokens, segments)
    nll = nn.log_softmax(logits[:, :-1])
    nll = -jnp.take_along_axis(nll, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.sum(nll * weights[:, 1:]) / jnp.sum(weights[:, 1:]), logits


def their_loss(model, rows: Rows):
    """Loss and logits of the conversations, each run alone; gradients are left in the model."""
    count = int(sum(mask.sum() for mask in rows.masks))
    model.zero_grad()
    loss, apart = torch.zeros(()), []
    for text, mask in zip(rows.texts, rows.masks, strict=True):
        ids = torch.tensor(text, dtype=torch.long)
        apart.append(model(ids[None]).logits[0])
        nll = torch.nn.functional.cross_entropy(apart[-1][:-1], ids[1:], reduction="none")
        loss = loss + (nll * torch.tensor(mask[1:])).sum() / count
    loss.backward()
    return loss.item(), torch.cat(apart)


def gradient_differences(config, model, gradients) -> dict[str, float]:
    """Largest absolute difference of every tensor's gradient, by the name in the file."""
    theirs = {name: weight.grad for name, weight in model.named_parameters()}
    ours = to_torch(config, gradients)
    names = {name: name.replace("embed_out.", "lm_head.") for name in ours}
    assert set(names.values()) == set(theirs)
    return {name: max_diff(ours[name], theirs[names[name]]) for name in ours}
