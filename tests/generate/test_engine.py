"""The engine against a whole forward pass, and what no company may change."""

import dataclasses
import gc
from functools import cache, partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from thorough import sample

from tulu_jax.errors import ConfigError, DataError
from tulu_jax.generate import Engine, Request, Sampling
from tulu_jax.models import ComputeConfig, LlamaConfig, abstract_params, forward
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

CONFIG = LlamaConfig(vocab_size=40, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2,
                     head_dim=4, max_length=224, norm_eps=1e-5)  # fmt: skip
RNG = np.random.default_rng(0)
LENGTHS = (3, 1, 18, 64, 65, 66, 101, 150)
"""About pieces of 64 tokens, and of 16; and a block of the cache, 128."""
PROMPTS = [[1, *RNG.integers(3, 40, length - 1).tolist()] for length in LENGTHS]
SHARED = [PROMPTS[-1][:140] + tail for tail in ([4], [5, 6, 7], PROMPTS[0])]
SLOTS = 3


@cache
def random_params(config, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.6).astype(np.float32), abstract_params(config)
    )


@pytest.fixture(scope="module")
def engine():
    return Engine(CONFIG, random_params(CONFIG), slots=SLOTS, stop_ids=[])


LOGPROBS = jax.jit(
    lambda params, tokens: jax.nn.log_softmax(forward(CONFIG, params, tokens)), static_argnames=()
)


def whole_logprobs(tokens):
    """[tokens, V]: after each token, by one forward pass."""
    row = np.zeros((1, CONFIG.max_length), np.int32)
    row[0, : len(tokens)] = tokens
    return np.asarray(LOGPROBS(random_params(CONFIG), row))[0, : len(tokens)]


def check(prompt, completion):
    """Greedy tokens and their log-probabilities, as the whole pass has them."""
    found = whole_logprobs([*prompt, *completion.tokens])[len(prompt) - 1 : -1]
    assert completion.tokens == found.argmax(-1).tolist()
    expected = found[np.arange(len(found)), completion.tokens]
    np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)


def test_tokens_and_logprobs_are_those_of_the_whole_forward(engine):
    for prompt, found in zip(PROMPTS, engine.generate(PROMPTS, max_new_tokens=30), strict=True):
        check(prompt, found)
        assert len(found.tokens) == 30 and found.stop_reason == "length" and not found.capped


def test_shared_beginnings_are_read_once(engine):
    alone = Engine(CONFIG, random_params(CONFIG), slots=SLOTS, stop_ids=[])
    found = alone.generate([SHARED[0]], max_new_tokens=4)
    before = dataclasses.replace(alone.stats)
    found += alone.generate(SHARED[1:] * 2, max_new_tokens=4)
    assert alone.stats.shared_tokens - before.shared_tokens >= 4 * 64
    for prompt, completion in zip([*SHARED, *SHARED[1:]], found, strict=True):
        check(prompt, completion)


def test_samples_of_one_prompt_read_it_once():
    alone = Engine(CONFIG, random_params(CONFIG), slots=SLOTS, stop_ids=[])
    prompt = PROMPTS[-2]
    found = alone.generate([prompt], max_new_tokens=5, n=4, sampling=Sampling(1.0))
    assert alone.stats.read_tokens == len(prompt) - 1
    assert len({tuple(completion.tokens) for completion in found}) > 1


REQUEST = st.builds(
    Request,
    prompt=st.sampled_from([*PROMPTS, *SHARED]),
    max_new_tokens=st.integers(1, 40),
    sampling=st.sampled_from([Sampling(), Sampling(1.0), Sampling(0.7, 0.8), Sampling(1.0, 1, 3)]),
    seed=st.integers(0, 2**32 - 1),
    stop_ids=st.sampled_from([(), (7,), (3, 9, 21)]),
    tops=st.sampled_from([0, 3]),
    logit_bias=st.sampled_from([{}, {5: 4.0}]),
    prompt_tops=st.sampled_from([None, None, 0, 1, 3]),
    keep_stop=st.booleans(),
)
ALONE = {}


def key(request):
    return repr(request)


def alone(request):
    """What the request gets from an engine that never did anything else."""
    if key(request) not in ALONE:
        fresh = Engine(CONFIG, random_params(CONFIG), slots=SLOTS, stop_ids=[])
        (ALONE[key(request)],) = fresh.run([request])
    return ALONE[key(request)]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_request_gets_the_same_bits_in_any_company(engine, data):
    """Whatever runs beside it, in whatever order, whatever rows hold from before."""
    requests = data.draw(st.lists(REQUEST, min_size=1, max_size=8))
    for request, found in zip(requests, engine.run(requests), strict=True):
        expected = alone(request)
        assert found.tokens == expected.tokens
        assert found.logprobs.tobytes() == expected.logprobs.tobytes()
        assert found.stop_reason == expected.stop_reason
        if request.tops:
            assert found.top_tokens.tobytes() == expected.top_tokens.tobytes()
            assert found.top_logprobs.tobytes() == expected.top_logprobs.tobytes()
        for one, other in zip(found.prompt or (), expected.prompt or (), strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("slots", [1, 5])
def test_other_numbers_of_slots_give_the_same_tokens(engine, slots):
    other = Engine(CONFIG, random_params(CONFIG), slots=slots, stop_ids=[])
    for sampling in (Sampling(), Sampling(1.0, 0.9)):
        options = {"max_new_tokens": 25, "sampling": sampling, "seed": 3}
        for one, two in zip(
            engine.generate(PROMPTS, **options), other.generate(PROMPTS, **options), strict=True
        ):
            assert one.tokens == two.tokens
            np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-5)


def test_draws_depend_on_seed_and_stream_only(engine):
    options = {"max_new_tokens": 40, "sampling": Sampling(1.0, 0.9)}
    tokens = [found.tokens for found in engine.generate(PROMPTS, seed=3, **options)]
    assert tokens != [found.tokens for found in engine.generate(PROMPTS, seed=4, **options)]
    same = engine.generate([PROMPTS[0]] * 3, seed=3, **options)
    assert len({tuple(found.tokens) for found in same}) == 3
    assert same[0].tokens == tokens[0]


def test_stop_tokens_end_a_row_and_are_left_out(engine):
    free = [found.tokens for found in engine.generate(PROMPTS, max_new_tokens=40)]
    two = (free[0][7], free[1][3])
    for tokens, found in zip(
        free, engine.generate(PROMPTS, max_new_tokens=40, stop_ids=two), strict=True
    ):
        at = next((index for index, token in enumerate(tokens) if token in two), None)
        assert found.tokens == tokens[:at]
        assert found.stop_reason == ("length" if at is None else "eos")
        assert len(found.logprobs) == len(found.tokens)


def test_the_models_length_ends_a_row(engine):
    """As AlpacaEval asks 2,048-token models for 2,048 new tokens."""
    (found,) = engine.generate([PROMPTS[2]], max_new_tokens=500)
    assert len(found.tokens) == CONFIG.max_length - len(PROMPTS[2])
    assert found.stop_reason == "room" and found.capped
    check(PROMPTS[2], found)
    (exact,) = engine.generate([PROMPTS[2]], max_new_tokens=CONFIG.max_length - len(PROMPTS[2]))
    assert exact.stop_reason == "length" and not exact.capped and exact.tokens == found.tokens


def test_rotary_positions_allow_a_longer_row(engine):
    longer = Engine(CONFIG, random_params(CONFIG), slots=1, stop_ids=[], max_length=300)
    (found,) = longer.generate([PROMPTS[2]], max_new_tokens=250)
    (short,) = engine.generate([PROMPTS[2]], max_new_tokens=500)
    assert len(found.tokens) == 250 and found.tokens[: len(short.tokens)] == short.tokens


def test_likeliest_tokens_are_reported(engine):
    (found,) = engine.generate([PROMPTS[4]], max_new_tokens=6, logprobs=True)
    whole = whole_logprobs([*PROMPTS[4], *found.tokens])[len(PROMPTS[4]) - 1 : -1]
    order = np.argsort(-whole, axis=-1)[:, : found.top_tokens.shape[1]]
    np.testing.assert_array_equal(found.top_tokens, order)
    expected = np.take_along_axis(whole, order, axis=-1)
    np.testing.assert_allclose(found.top_logprobs, expected, atol=1e-4)


def test_biases_choose_but_do_not_count_as_likelihood(engine):
    request = Request(PROMPTS[4], 6, logit_bias={11: 100.0})
    (found,) = engine.run([request])
    assert found.tokens == [11] * 6
    whole = whole_logprobs([*PROMPTS[4], *found.tokens])[len(PROMPTS[4]) - 1 : -1]
    np.testing.assert_allclose(found.logprobs, whole[:, 11], atol=1e-4)
    (banned,) = engine.run([Request(PROMPTS[4], 6, logit_bias={11: -100.0})])
    assert 11 not in banned.tokens


def test_completions_are_told_as_they_come(engine):
    told = {}
    found = engine.generate(PROMPTS, max_new_tokens=9, on_done=told.__setitem__)
    assert [told[index] for index in range(len(PROMPTS))] == found
    assert engine.generate([], max_new_tokens=5) == []


def test_many_requests_through_few_slots_are_each_answered_once():
    count = sample(2000)
    engine = Engine(CONFIG, random_params(CONFIG), slots=4, stop_ids=[])
    rng, answers, jobs = np.random.default_rng(1), {}, []
    gc.collect()  # else what tests before left goes during this one
    held = sum(array.nbytes for array in jax.live_arrays())
    for number in range(count):
        prompt = PROMPTS[rng.integers(len(PROMPTS))][: rng.integers(1, 131)]
        stops = tuple(rng.integers(3, 40, rng.integers(3)).tolist())
        request = Request(prompt, int(rng.integers(1, 20)), stop_ids=stops)
        note = partial(lambda number, done: answers.setdefault(number, []).append(done), number)
        jobs.append((engine.submit(request, note), request))
    cancelled = set()
    while engine.busy:
        for number in rng.integers(0, count, 6):
            if rng.random() < 0.3 and number not in answers:
                jobs[number][0].cancelled = True
                cancelled.add(int(number))
        engine.turn()
    assert answers.keys() == set(range(count)) and {*map(len, answers.values())} == {1}
    reasons = {number: found[0].stop_reason for number, found in answers.items()}
    assert {number for number in reasons if reasons[number] == "cancelled"} <= cancelled
    assert sum(reason == "cancelled" for reason in reasons.values()) > count // 40
    gc.collect()
    assert sum(array.nbytes for array in jax.live_arrays()) == held
    assert engine._table.num_free == 4
    for number in (0, 100, count - 1):
        if reasons[number] != "cancelled":
            assert answers[number][0].tokens == alone(jobs[number][1]).tokens


def test_an_interrupted_run_leaves_the_rows_free(engine):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS, max_new_tokens=9, on_done=stop)
    assert not engine.busy
    check(PROMPTS[0], engine.generate([PROMPTS[0]], max_new_tokens=9)[0])


def test_a_run_interrupted_within_a_dispatch_leaves_a_cache(engine, monkeypatch):
    """Ctrl-C between the end of a call, which used its buffers up, and the taking of its result."""
    worker = engine._worker
    steps = worker._steps

    def decode(*args, **options):
        steps.decode(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "_steps", steps._replace(decode=decode))
        engine.generate(SHARED, max_new_tokens=9)
    check(SHARED[0], engine.generate(SHARED, max_new_tokens=9)[0])
    done = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "_steps", steps._replace(decode=decode))
        for prompt in PROMPTS:
            engine.submit(Request(prompt, 9), done.append)
        engine.turn(read_at_most=1)
    engine.abandon()
    assert not engine.busy and not done and engine._table.num_free == SLOTS
    for prompt, found in zip(SHARED, engine.generate(SHARED, max_new_tokens=9), strict=True):
        check(prompt, found)


def test_numbers_that_overflow_do_not_spoil_the_next_request():
    params = jax.tree.map(np.copy, random_params(CONFIG))
    params["embedding"][39] = np.inf
    spoiled = Engine(CONFIG, params, slots=1, stop_ids=[])
    (found,) = spoiled.generate([[1, 39, 5]], max_new_tokens=3)
    assert not np.isfinite(found.logprobs).any()
    (after,) = spoiled.run([Request(PROMPTS[0], 5, logit_bias={39: -1e4})])
    assert np.isfinite(after.logprobs).all()


def test_bfloat16_runs_and_starts_alike(engine):
    compute = ComputeConfig(dtype="bfloat16")
    narrow = Engine(CONFIG, random_params(CONFIG), slots=SLOTS, compute=compute, stop_ids=[])
    pairs = zip(
        narrow.generate(PROMPTS, max_new_tokens=1),
        engine.generate(PROMPTS, max_new_tokens=1),
        strict=True,
    )
    assert sum(one.tokens == two.tokens for one, two in pairs) >= len(PROMPTS) - 1


def test_sharded_weights_give_the_same_tokens(engine):
    expected = engine.generate(PROMPTS, max_new_tokens=20)
    layout = layout_for(CONFIG, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    with layout.activate():
        params = jax.device_put(random_params(CONFIG), layout.params(CONFIG))
        sharded = Engine(CONFIG, params, slots=SLOTS, stop_ids=[])
        found = sharded.generate(PROMPTS, max_new_tokens=20)
        again = sharded.generate(PROMPTS[::-1], max_new_tokens=20)[::-1]
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert [one.logprobs.tobytes() for one in found] == [one.logprobs.tobytes() for one in again]
    spec = sharded._worker._weights.layers[0]["matrices"]["mlp"]["up"].rows.sharding
    assert isinstance(spec, NamedSharding) and spec.spec != PartitionSpec()


def test_other_weights_without_compiling_again(engine):
    """What is answered is, to the bit, what an engine that never had others answers."""

    def answers(engine):
        found = engine.generate(PROMPTS, max_new_tokens=9)
        scored = engine.score([(PROMPTS[5], [4]), (PROMPTS[6], [5, 6])])
        logprobs = [one.logprobs.tobytes() for one in (*found, *scored)]
        return [one.tokens for one in found], logprobs

    used = Engine(CONFIG, random_params(CONFIG), slots=SLOTS, stop_ids=[])
    before = answers(used)
    compiled = [step._cache_size() for step in used._worker._steps]
    used.load(None)
    assert not jax.tree.leaves((used._worker._weights, used._worker._layers))
    used.load(random_params(CONFIG, seed=1))
    other = answers(used)
    assert [step._cache_size() for step in used._worker._steps] == compiled and min(compiled) >= 0
    assert other == answers(Engine(CONFIG, random_params(CONFIG, seed=1), slots=SLOTS, stop_ids=[]))
    used.load(random_params(CONFIG))
    assert answers(used) == before != other


def test_weights_do_not_change_while_requests_run(engine):
    engine.submit(Request([1], 2), lambda _: None)
    with pytest.raises(DataError, match="weights cannot change while requests run - wait for the"):
        engine.load(random_params(CONFIG))
    engine.abandon()
    assert not engine.busy


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, "prompt is empty - at prompt 1"),
        ([[1, 40]], {}, "ids outside the model's vocabulary - got ids from 1 to 40 at prompt 0"),
        ([[-1]], {}, "ids outside the model's vocabulary"),
        ([[1.5]], {}, "prompt is no list of token ids - got an array of float64"),
        (
            [[1], [1] * CONFIG.max_length],
            {},
            "leaves no room for an answer .* got 224 tokens at prompt 1",
        ),
        ([[1]], {"n": 0}, "n is impossible - got 0"),
        ([[1]], {"stop_ids": range(65)}, "too many stop_ids - got 65 at prompt 0"),
        ([[1]], {"stop_strings": ["x"] * 10_000}, "too many stop_strings - got 10000"),
        ([[1]], {"stop_strings": [""]}, "a stop string is empty"),
        ([[1]], {"stop_strings": ["x"]}, "stop strings need a tokenizer"),
    ],
)
def test_prompts_that_cannot_be_continued(engine, prompts, options, message):
    with pytest.raises(DataError, match=message):
        engine.generate(prompts, **options)
    assert not engine.busy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is out of range - got 0"),
        ({"stream": -1}, "stream is out of range"),
        ({"seed": -1}, "seed is impossible - got -1"),
        ({"seed": 2**32}, "Request.seed is out of range - got 4294967296"),
    ],
)
def test_impossible_requests(options, message):
    with pytest.raises(ConfigError, match=message):
        Request([1], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tops": 21}, "too many tops - got 21 at x - expected at most 20"),
        ({"logit_bias": dict.fromkeys(range(301), 1.0)}, "too many logit_bias - got 301"),
        ({"logit_bias": {40: 1.0}}, "logit_bias has token ids outside the model's vocabulary"),
        ({"logit_bias": {1: float("nan")}}, "logit_bias is not finite"),
    ],
)
def test_requests_that_cannot_be_done(engine, options, message):
    with pytest.raises(DataError, match=message):
        engine.check(Request([1], **options), "x")


def test_impossible_engines():
    with pytest.raises(ConfigError, match="number of slots is impossible - got 0"):
        Engine(CONFIG, random_params(CONFIG), slots=0)
    with pytest.raises(ConfigError, match="max_length is impossible - got 0"):
        Engine(CONFIG, random_params(CONFIG), max_length=0)


def test_text_needs_a_tokenizer(engine):
    with pytest.raises(DataError, match="text needs a tokenizer"):
        engine.stream([1])
