"""Greedy tokens and scores against transformers, one prompt at a time."""

import numpy as np
import pytest
import torch
from thorough import sample
from weights import random_params

from tulu_jax.generate import Engine

from .reference import CONFIGS, torch_model

NUM_PROMPTS, NEW_TOKENS = sample(26), 24
NEAR_TIE = 0.01
"""Two logits closer than this may change places between two orders of summation."""


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    config = CONFIGS[request.param]
    params = random_params(config)
    return Engine(config, params, slots=8, stop_ids=[]), torch_model(config, params)


def prompts_for(config, count):
    rng = np.random.default_rng(0)
    longest = config.max_length - NEW_TOKENS
    return [
        rng.integers(0, config.vocab_size, rng.integers(1, longest + 1)).tolist()
        for _ in range(count)
    ]


def by_transformers(model, prompt):
    rows = torch.tensor([prompt])
    made = model.generate(
        rows,
        attention_mask=torch.ones_like(rows),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return made[0, len(prompt) :].tolist()


@torch.no_grad()
def logprobs_of(model, tokens):
    return model(torch.tensor([tokens])).logits[0].float().log_softmax(-1).numpy()


def test_greedy_tokens_are_transformers_up_to_near_ties(pair):
    """With `TULU_THOROUGH=1` 26 prompts a model, 208 in all."""
    engine, model = pair
    prompts = prompts_for(engine.config, NUM_PROMPTS)
    for prompt, found in zip(
        prompts, engine.generate(prompts, max_new_tokens=NEW_TOKENS), strict=True
    ):
        theirs = by_transformers(model, prompt)
        if found.tokens == theirs:
            continue
        same = next(i for i, (a, b) in enumerate(zip(found.tokens, theirs, strict=True)) if a != b)
        best = np.sort(logprobs_of(model, prompt + theirs[:same])[-1])
        assert best[-1] - best[-2] < NEAR_TIE


def test_scores_are_transformers_log_softmax(pair):
    engine, model = pair
    rng = np.random.default_rng(1)
    prompts = prompts_for(engine.config, NUM_PROMPTS)
    pairs = [
        (prompt, rng.integers(0, engine.config.vocab_size, size).tolist())
        for prompt in prompts
        for size in (1, NEW_TOKENS)
    ]
    for (prompt, answer), score in zip(pairs, engine.score(pairs), strict=True):
        theirs = logprobs_of(model, prompt + answer)[len(prompt) - 1 : -1]
        expected = theirs[np.arange(len(answer)), answer]
        np.testing.assert_allclose(score.logprobs, expected, atol=1e-4)
