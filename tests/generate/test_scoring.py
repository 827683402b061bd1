"""Scores against one forward pass over prompt and continuation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_jax.errors import DataError
from tulu_jax.generate import Engine

from .test_engine import CONFIG, PROMPTS, SHARED, random_params, whole_logprobs


@pytest.fixture(scope="module")
def engine():
    return Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])


PAIR = st.tuples(
    st.sampled_from([*PROMPTS, *SHARED]),
    st.lists(st.integers(0, 39), min_size=1, max_size=3) | st.just([5] * 25),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(PAIR, max_size=6))
def test_scores_are_those_of_the_whole_forward(engine, pairs):
    alone = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])
    for (prompt, answer), found in zip(pairs, engine.score(pairs), strict=True):
        whole = whole_logprobs([*prompt, *answer])[len(prompt) - 1 : -1]
        expected = whole[np.arange(len(answer)), answer]
        np.testing.assert_allclose(found.logprobs, expected, atol=1e-4)
        assert found.greedy == (whole.argmax(-1).tolist() == answer)
        assert found.total == pytest.approx(expected.sum(), abs=1e-3)
        (again,) = alone.score([(prompt, answer)])
        assert again.logprobs.tobytes() == found.logprobs.tobytes()


def test_the_greedy_continuation_is_greedy(engine):
    (made,) = engine.generate([PROMPTS[3]], max_new_tokens=20)
    (found,) = engine.score([(PROMPTS[3], made.tokens)])
    assert found.greedy
    np.testing.assert_allclose(found.logprobs, made.logprobs, atol=1e-4)


def test_continuations_of_one_token_cost_one_pass(engine):
    alone = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])
    alone.score([(PROMPTS[-1], [choice]) for choice in range(4)])
    assert alone.stats.read_tokens == len(PROMPTS[-1])


def test_a_text_in_one_pass(engine):
    for prompt in PROMPTS:
        score, top_tokens, top_logprobs = engine.score_prompt(prompt, tops=2)
        whole = whole_logprobs(prompt)[:-1]
        expected = whole[np.arange(len(whole)), prompt[1:]]
        np.testing.assert_allclose(score.logprobs, expected, atol=1e-4)
        assert top_tokens.shape == (len(prompt) - 1, 2)
        np.testing.assert_allclose(top_logprobs, -np.sort(-whole)[:, :2], atol=1e-4)
        if len(prompt) > 1:
            assert (top_tokens[:, 0] == whole.argmax(-1)).all()


def test_the_longest_that_fits(engine):
    prompt = [1] * (CONFIG.max_length - 1)
    (found,) = engine.score([(prompt, [5, 6])])
    whole = whole_logprobs([*prompt, 5])
    assert found.logprobs[1] == pytest.approx(whole[-1, 6], abs=1e-4)


@pytest.mark.parametrize("used_up", [False, True])
def test_an_interrupted_prompt_is_read_again(monkeypatch, used_up):
    """Ctrl-C before a piece is read, or after its call has used the cache's buffers up."""
    engine = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[])
    worker, pair = engine._worker, (PROMPTS[-1], [5, 6])
    (expected,) = Engine(CONFIG, random_params(CONFIG), slots=2, stop_ids=[]).score([pair])

    def read(*args, **options):
        if used_up:
            steps.read(*args, **options)
        raise KeyboardInterrupt

    steps = worker._steps
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "_steps", steps._replace(read=read))
        engine.score([pair])
    (found,) = engine.score([pair])
    assert found.logprobs.tobytes() == expected.logprobs.tobytes()
    assert engine._table.num_free == 2


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([], [1]), "prompt is empty - at pair 0"),
        (([1], []), "continuation is empty - at pair 0"),
        (([1], [40]), "continuation has token ids outside the model's vocabulary"),
        (([1] * 223, [1] * 3), r"longer than the model's sequences - got 223 \+ 3 tokens"),
    ],
)
def test_pairs_that_cannot_be_scored(engine, pair, message):
    with pytest.raises(DataError, match=message):
        engine.score([pair])
