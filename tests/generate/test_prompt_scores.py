"""A prompt's own log-probabilities, had with the reading that its continuation needs."""

import numpy as np
import pytest

from tulu_jax.errors import ConfigError, DataError
from tulu_jax.generate import Engine, Request

from .test_engine import CONFIG, PROMPTS, SHARED, check, random_params, whole_logprobs


@pytest.fixture(scope="module")
def engine():
    return Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])


@pytest.mark.parametrize("tops", [0, 1, 5])
def test_scores_of_prompt_and_continuation_in_one_pass(engine, tops):
    requests = [Request(prompt, 3, prompt_tops=tops) for prompt in PROMPTS]
    for prompt, found in zip(PROMPTS, engine.run(requests), strict=True):
        check(prompt, found)
        whole = whole_logprobs(prompt)[:-1]
        scores = found.prompt
        np.testing.assert_allclose(
            scores.logprobs, whole[np.arange(len(whole)), prompt[1:]], atol=1e-4
        )
        assert scores.top_tokens.shape == (len(prompt) - 1, tops)
        np.testing.assert_allclose(scores.top_logprobs, -np.sort(-whole)[:, :tops], atol=1e-4)


def test_the_likeliest_token_has_the_very_number_of_the_top(engine):
    """As clients see by equality of floats whether a token was the greedy one."""
    (made,) = engine.run([Request(PROMPTS[2], 40)])
    text = PROMPTS[2] + made.tokens
    (found,) = engine.run([Request(text, 1, prompt_tops=1, tops=1)])
    start = len(PROMPTS[2]) - 1
    assert found.prompt.greedy[start:].all() and not found.prompt.greedy.all()
    equal = found.prompt.logprobs == found.prompt.top_logprobs[:, 0]
    assert (equal == found.prompt.greedy).all()
    assert found.logprobs[0] == found.top_logprobs[0, 0]


def test_only_the_prompt(engine):
    longest = [1] * CONFIG.max_length
    for prompt in (longest, [5]):
        (found,) = engine.run([Request(prompt, 0, prompt_tops=1)])
        assert found.tokens == [] and found.stop_reason == "length"
        assert found.prompt.logprobs.shape == (len(prompt) - 1,)
    assert not engine.busy and engine._table.num_free == 2


def test_a_shared_beginning_is_scored_once():
    alone = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])
    requests = [Request(prompt, 1, prompt_tops=1) for prompt in SHARED]
    found = alone.run(requests)
    assert alone.stats.shared_tokens >= 2 * 64
    for prompt, one in zip(SHARED, found, strict=True):
        whole = whole_logprobs(prompt)[:-1]
        np.testing.assert_allclose(
            one.prompt.logprobs, whole[np.arange(len(whole)), prompt[1:]], atol=1e-4
        )


def test_a_stop_token_is_kept_where_it_is_wanted(engine):
    (free,) = engine.run([Request(PROMPTS[0], 9)])
    stop = free.tokens[4]
    at = free.tokens.index(stop)
    options = {"stop_ids": (stop,), "tops": 1}
    (kept,) = engine.run([Request(PROMPTS[0], 9, keep_stop=True, **options)])
    (left_out,) = engine.run([Request(PROMPTS[0], 9, **options)])
    assert kept.tokens == free.tokens[: at + 1] and left_out.tokens == free.tokens[:at]
    assert kept.logprobs.tobytes() == free.logprobs[: at + 1].tobytes()
    assert kept.top_tokens.shape == (at + 1, 1) and kept.stop_reason == "eos"


def test_scores_are_had_while_all_rows_are_busy(engine):
    done = []
    for prompt in PROMPTS[:3]:
        engine.submit(Request(prompt, 30), done.append)
    engine.turn()
    assert engine._table.num_free == 0
    (score,) = engine.score([(PROMPTS[3], [5, 6])])
    assert np.isfinite(score.logprobs).all()
    while engine.busy:
        engine.turn()
    assert len(done) == 3


def test_numbers_of_a_prompt_that_overflow_do_not_spoil_the_next():
    params = {**random_params(CONFIG)}
    params["embedding"] = params["embedding"].copy()
    params["embedding"][39] = np.inf
    spoiled = Engine(CONFIG, params, slots=1, stop_ids=[])
    (found,) = spoiled.run([Request([1, 39, 5], 0, prompt_tops=1)])
    assert not np.isfinite(found.prompt.logprobs).all()
    (after,) = spoiled.run([Request(PROMPTS[0], 5, logit_bias={39: -1e4})])
    assert np.isfinite(after.logprobs).all()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([1], 1, prompt_tops=21), "too many prompt_tops - got 21 at x"),
        (
            Request([1] * 225, 0, prompt_tops=0),
            "has no room in .* got 225 tokens at x - expected at most max_length=224",
        ),
    ],
)
def test_requests_that_cannot_be_done(engine, request_, message):
    with pytest.raises(DataError, match=message):
        engine.check(request_, "x")


def test_no_tokens_without_scores_are_nothing_to_do():
    with pytest.raises(ConfigError, match=r"max_new_tokens is out of range - got 0 - expected .*p"):
        Request([1], 0)
