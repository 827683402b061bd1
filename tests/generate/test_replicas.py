"""Several engines that share the work: the same bits, nothing lost, and each told alone."""

import threading
from functools import partial

import jax
import numpy as np
import pytest

from tulu_jax.errors import DataError
from tulu_jax.generate import Engine, Replicas, Request, Sampling
from tulu_jax.generate.weights import moved
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

from .test_engine import CONFIG, PROMPTS, SHARED, check, random_params

SLOTS = 2


def one_device_each(count):
    scopes = [partial(jax.default_device, device) for device in jax.devices()[:count]]
    engines = []
    for scope, device in zip(scopes, jax.devices(), strict=False):
        with scope():
            first = engines[0].weights if engines else None
            params = random_params(CONFIG) if first is None else moved(CONFIG, first, device)
            engines.append(Engine(CONFIG, params, slots=SLOTS, stop_ids=[]))
    return Replicas(engines, scopes)


@pytest.fixture(scope="module")
def replicas():
    return one_device_each(3)


@pytest.fixture(scope="module")
def alone():
    return Engine(CONFIG, random_params(CONFIG), slots=SLOTS, stop_ids=[])


def test_each_lies_on_a_device_of_its_own(replicas):
    replicas.generate(PROMPTS, max_new_tokens=2)
    for (engine, _), device in zip(replicas._engines, jax.devices(), strict=False):
        arrays = jax.tree.leaves((engine.weights, engine._worker._layers))
        assert {array.device for array in arrays} == {device}
        assert engine.stats.decoded_tokens > 0
    assert replicas.slots == 3 * SLOTS


def test_answers_are_those_of_one_engine(replicas, alone):
    for sampling in (Sampling(), Sampling(1.0, 0.9)):
        options = {"max_new_tokens": 20, "sampling": sampling, "seed": 3, "n": 2}
        pairs = zip(
            replicas.generate([*PROMPTS, *SHARED], **options),
            alone.generate([*PROMPTS, *SHARED], **options),
            strict=True,
        )
        for one, two in pairs:
            assert one.tokens == two.tokens
            assert one.logprobs.tobytes() == two.logprobs.tobytes()


def test_scores_are_those_of_one_engine(replicas, alone):
    pairs = [(prompt, ids) for prompt in PROMPTS[:5] for ids in ([4], [5, 6])]
    found, expected = replicas.score(pairs), alone.score(pairs)
    assert [one.logprobs.tobytes() for one in found] == [one.logprobs.tobytes() for one in expected]
    score, tops, _ = replicas.score_prompt(PROMPTS[3], 3)
    expected, others, _ = alone.score_prompt(PROMPTS[3], 3)
    assert score.logprobs.tobytes() == expected.logprobs.tobytes()
    np.testing.assert_array_equal(tops, others)
    assert replicas.score([]) == []


def test_what_is_wrong_is_told_by_its_place(replicas):
    pairs = [([1, 2], [3]), ([4], [5]), ([6], [])]
    with pytest.raises(DataError, match="continuation is empty - at pair 2"):
        replicas.score(pairs)


def test_many_requests_are_each_answered_once(replicas):
    rng = np.random.default_rng(2)
    answers, jobs, inside = {}, [], []

    def note(number, done):
        assert not inside, "told of two things at once"
        inside.append(number)
        answers.setdefault(number, []).append(done)
        inside.pop()

    for number in range(200):
        request = Request(PROMPTS[rng.integers(len(PROMPTS))], int(rng.integers(1, 20)))
        jobs.append(replicas.submit(request, partial(note, number)))
    while replicas.busy:
        for number in rng.integers(0, 200, 3):
            jobs[number].cancelled |= bool(rng.random() < 0.2)
        replicas.turn()
    assert answers.keys() == set(range(200)) and {*map(len, answers.values())} == {1}
    assert sum(done[0].stop_reason == "cancelled" for done in answers.values()) > 5
    assert not replicas.num_running
    stats = replicas.stats
    assert stats.decoded_tokens == sum(one.stats.decoded_tokens for one, _ in replicas._engines)


def test_none_waits_for_the_others_turns(replicas, monkeypatch):
    slow, go = replicas._engines[0][0], threading.Event()
    turn, ended = Engine.turn, []

    def waiting(engine, **options):
        if engine is slow:
            assert go.wait(60), "the others never came to their ends"
        turn(engine, **options)

    monkeypatch.setattr(Engine, "turn", waiting)
    for index in range(3 * SLOTS):
        replicas.submit(Request(PROMPTS[index], 2), partial(lambda i, _: ended.append(i), index))
    while len(ended) < 2 * SLOTS:
        replicas.turn()
    assert slow.num_pending == SLOTS
    go.set()
    while replicas.busy:
        replicas.turn()
    assert sorted(ended) == [*range(3 * SLOTS)]


def test_one_that_fails_is_told_and_the_others_go_on(replicas, monkeypatch):
    turn, broken = Engine.turn, replicas._engines[1][0]

    def failing(engine, **options):
        if engine is broken:
            raise OSError("the device is gone")
        turn(engine, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "turn", failing)
        with pytest.raises(OSError, match="the device is gone"):
            replicas.generate(PROMPTS, max_new_tokens=3)
    assert not replicas.busy
    check(PROMPTS[2], replicas.generate(PROMPTS, max_new_tokens=9)[2])


def test_an_interrupted_run_leaves_all_free(replicas):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replicas.generate(PROMPTS * 4, max_new_tokens=9, on_done=stop)
    assert not replicas.busy
    replicas.submit(Request(PROMPTS[0], 9), lambda _: None)
    replicas.submit(Request(PROMPTS[1], 9), lambda _: None)
    replicas.turn()
    replicas.abandon()
    assert not replicas.busy
    check(PROMPTS[0], replicas.generate([PROMPTS[0]], max_new_tokens=9)[0])


def test_a_replica_may_be_of_several_devices():
    scopes, engines = [], []
    for at in (0, 2):
        mesh = make_mesh(MeshConfig(fsdp=1, tensor=2), jax.devices()[at : at + 2])
        scopes.append(layout_for(CONFIG, mesh).activate)
        with scopes[-1]():
            params = moved(CONFIG, engines[0].weights) if engines else random_params(CONFIG)
            engines.append(Engine(CONFIG, params, slots=SLOTS, stop_ids=[]))
    both = Replicas(engines, scopes)
    for prompt, found in zip(PROMPTS, both.generate(PROMPTS, max_new_tokens=12), strict=True):
        check(prompt, found)
    for engine, devices in zip(engines, (jax.devices()[:2], jax.devices()[2:4]), strict=True):
        assert engine.stats.decoded_tokens > 0
        for layer in engine._worker._layers:
            assert layer.key.sharding.device_set == set(devices)
            assert layer.key.addressable_shards[0].data.shape[1] == CONFIG.num_kv_heads / 2
