import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tulu_jax.errors import DataError
from tulu_jax.generate import Generator, Sampling
from tulu_jax.generate.engine import bucket
from tulu_jax.models import ComputeConfig, LlamaConfig, abstract_params, forward
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

CONFIG = LlamaConfig(
    vocab_size=40,
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_length=64,
    norm_eps=1e-5,
)
PROMPTS = [[1, 5, 9], [1], [1, 7, 3, 22, 30, 12, 9, 9, 4, 8, 8, 2, 2, 5, 6, 7, 8, 9], [1, 39, 17]]


def random_params(config, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.6).astype(np.float32), abstract_params(config)
    )


@pytest.fixture(scope="module")
def generator():
    return Generator(CONFIG, random_params(CONFIG))


def by_full_forward(generator, prompt, count, stop=CONFIG.eos_id):
    """Greedy tokens without a cache: the whole sequence is run anew for each."""
    tokens = list(prompt)
    for _ in range(count):
        row = np.zeros((1, CONFIG.max_length), np.int32)
        row[0, : len(tokens)] = tokens
        logits = FORWARD(generator.params, row)
        token = int(np.argmax(logits[0, len(tokens) - 1]))
        if token == stop:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


FORWARD = jax.jit(lambda params, tokens: forward(CONFIG, params, tokens))


def test_cache_gives_what_the_whole_forward_gives(generator):
    answers = generator.generate(PROMPTS, max_new_tokens=40)
    assert answers == [by_full_forward(generator, prompt, 40) for prompt in PROMPTS]
    assert any(len(answer) == 40 for answer in answers)


def test_a_row_does_not_depend_on_its_batch(generator):
    together = generator.generate(PROMPTS, max_new_tokens=40)
    assert together == generator.generate(PROMPTS, max_new_tokens=40, batch_size=1)
    assert together == generator.generate(PROMPTS, max_new_tokens=40, batch_size=3)


def test_draws_depend_on_seed_and_row_only(generator):
    options = {"max_new_tokens": 40, "sampling": Sampling(1.0, 0.9), "stop_ids": []}
    first = generator.generate(PROMPTS, seed=3, **options)
    assert first == generator.generate(PROMPTS, seed=3, batch_size=3, **options)
    assert first != generator.generate(PROMPTS, seed=4, **options)
    same = generator.generate([PROMPTS[0]] * 3, seed=3, **options)
    assert len({tuple(row) for row in same}) == 3


def test_rows_stop_one_by_one(generator):
    free = generator.generate(PROMPTS, max_new_tokens=40, stop_ids=[])
    assert [len(row) for row in free] == [40] * len(PROMPTS)
    stop = free[0][7]
    expected = [row[: row.index(stop)] if stop in row else row for row in free]
    assert generator.generate(PROMPTS, max_new_tokens=40, stop_ids=[stop]) == expected
    assert len(expected[0]) <= 7
    two = [stop, free[1][3]]
    cut = [next((row[:i] for i, t in enumerate(row) if t in two), row) for row in free]
    assert generator.generate(PROMPTS, max_new_tokens=40, stop_ids=two) == cut


@pytest.mark.parametrize("count", [1, 2, 33])
def test_exactly_as_many_tokens_as_asked(generator, count):
    whole = generator.generate(PROMPTS, max_new_tokens=40, stop_ids=[])
    part = generator.generate(PROMPTS, max_new_tokens=count, stop_ids=[])
    assert part == [row[:count] for row in whole]


def test_stream_joined_is_generate(generator):
    pieces = list(generator.stream(PROMPTS[0], max_new_tokens=40, stop_ids=[]))
    assert len(pieces) > 3
    whole = generator.generate(PROMPTS[:1], max_new_tokens=40, stop_ids=[])[0]
    assert [token for piece in pieces for token in piece] == whole
    stopped = list(generator.stream(PROMPTS[0], max_new_tokens=40, stop_ids=[whole[0]]))
    assert stopped == []


def test_full_length_of_the_model(generator):
    prompt = PROMPTS[2]
    room = CONFIG.max_length - len(prompt)
    answer = generator.generate([prompt], max_new_tokens=room, stop_ids=[])[0]
    assert len(answer) == room
    assert answer == by_full_forward(generator, prompt, room, stop=None)


def test_batches_are_reported(generator):
    seen = {}

    def note(indices, answers):
        seen.update(zip(indices, map(tuple, answers), strict=True))

    answers = generator.generate(PROMPTS, max_new_tokens=40, batch_size=3, on_batch=note)
    assert [seen[i] for i in range(len(PROMPTS))] == [tuple(row) for row in answers]
    assert generator.generate([], max_new_tokens=5) == []


def test_few_shapes_are_compiled():
    config = dataclasses.replace(CONFIG, rope_theta=123.0)
    generator = Generator(config, random_params(config))
    for length in range(1, 16):
        generator.generate([[1] * length], max_new_tokens=1)
    assert generator._prefill._cache_size() <= 2
    again = Generator(config, random_params(config, seed=1))
    again.generate([[1]], max_new_tokens=1)
    assert again._prefill._cache_size() <= 2
    assert {bucket(n, 2048) for n in range(1, 2049)} == {
        16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048,
    }  # fmt: skip
    assert [bucket(n, 2048) for n in (1, 17, 300, 2000)] == [16, 32, 512, 2048]
    assert bucket(300, 301) == 301


def test_bfloat16_runs_and_starts_alike(generator):
    narrow = Generator(CONFIG, generator.params, compute=ComputeConfig(dtype="bfloat16"))
    assert narrow.params["embedding"].dtype == jnp.bfloat16
    wide = generator.generate(PROMPTS, max_new_tokens=1, stop_ids=[])
    same = sum(
        a == b
        for a, b in zip(narrow.generate(PROMPTS, max_new_tokens=1, stop_ids=[]), wide, strict=True)
    )
    assert same >= len(PROMPTS) - 1


def test_sharded_weights_give_the_same_tokens(generator):
    expected = generator.generate(PROMPTS, max_new_tokens=40, batch_size=4)
    layout = layout_for(CONFIG, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    with layout.activate():
        params = jax.device_put(generator.params, layout.params(CONFIG))
        sharded = Generator(CONFIG, params)
        assert sharded.generate(PROMPTS, max_new_tokens=40, batch_size=4) == expected
    spec = sharded.params["layers"]["mlp"]["up"].sharding
    assert isinstance(spec, NamedSharding)
    assert spec.spec != PartitionSpec()


@pytest.mark.parametrize(
    ("prompts", "count", "message"),
    [
        ([[1], []], 5, "prompt is empty - at prompt 1|prompt is empty - "),
        ([[1, 40]], 5, "ids outside the model's vocabulary - got ids from 1 to 40 at prompt 0"),
        ([[-1]], 5, "ids outside the model's vocabulary"),
        ([[1], [1] * 60], 5, r"longer than the model's sequences - got 60 \+ 5 tokens at prompt 1"),
        ([[1]], 0, "max_new_tokens is impossible - got 0"),
    ],
)
def test_prompts_that_cannot_be_continued(generator, prompts, count, message):
    with pytest.raises(DataError, match=message):
        generator.generate(prompts, max_new_tokens=count)


def test_tied_and_grouped_variants():
    config = dataclasses.replace(CONFIG, tie_embeddings=True, num_kv_heads=1)
    params = random_params(config)
    generator = Generator(config, params)
    answer = generator.generate([[1, 2, 3]], max_new_tokens=6, stop_ids=[])[0]
    tokens = jnp.asarray([[1, 2, 3, *answer]])
    logits = forward(config, params, tokens)
    assert answer == np.argmax(logits[0, 2:-1], axis=-1).tolist()
