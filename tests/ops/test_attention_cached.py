"""Attention over a cache against the dense reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.ops.attention import cached
from tulu_jax.ops.attention.cached import (
    BLOCK,
    LayerCache,
    attend_chunk,
    write_chunk,
    write_tokens,
)
from tulu_jax.ops.attention.dense import dense_attention

ROWS, KV, HEADS, WIDTH, LENGTH = 3, 2, 4, 8, 4 * BLOCK
SLOTS = np.array([BLOCK - 1, 2 * BLOCK, 5], np.int32)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture
def full():
    shape = (ROWS, KV, LENGTH, WIDTH)
    return LayerCache(normal(*shape), normal(*shape, seed=1))


def reference(query, cache, slots):
    """[B, T, N, H] in float64 rounding once: dense attention of queries at `slots` [B, T]."""
    ones = jnp.ones(slots.shape, jnp.int32)
    key, value = (jnp.asarray(one).swapaxes(1, 2) for one in cache)
    return dense_attention(query, key, value, ones, jnp.ones(key.shape[:2], jnp.int32), slots)


def test_example_of_the_docstring():
    """Each query sees its row up to itself: values are slot numbers, scores are equal."""
    value = jnp.broadcast_to(jnp.arange(BLOCK, dtype=jnp.float32)[:, None], (1, 1, BLOCK, 1))
    cache = LayerCache(jnp.zeros((1, 1, BLOCK, 1)), value)
    mixed = attend_chunk(jnp.ones((2, 1, 1)), cache, jnp.int32(0), jnp.int32(2))
    assert mixed.ravel().tolist() == [1.0, 1.5]  # of 0 1 2 and of 0 1 2 3


@pytest.mark.parametrize("start", [0, 5, BLOCK - 4, BLOCK, 2 * BLOCK + 9])
@pytest.mark.parametrize("length", [1, 16])
def test_a_piece_is_as_the_dense_reference(full, start, length):
    query = normal(length, HEADS, WIDTH, seed=2)
    slots = jnp.broadcast_to(start + jnp.arange(length), (ROWS, length))
    whole = reference(jnp.broadcast_to(query, (ROWS, *query.shape)), full, slots)
    for row in range(ROWS):
        mixed = attend_chunk(query, full, jnp.int32(row), jnp.int32(start))
        np.testing.assert_allclose(mixed, whole[row], atol=2e-6)


@pytest.mark.parametrize("form", [cached.row_by_row, cached.rows_at_once])
def test_tokens_are_as_the_dense_reference(full, form):
    query = normal(ROWS, HEADS, WIDTH, seed=2)
    alive = jnp.array([True, True, False])
    mixed = form(query, full, jnp.asarray(SLOTS), alive)
    whole = reference(query[:, None], full, jnp.asarray(SLOTS)[:, None])[:, 0]
    np.testing.assert_allclose(mixed[:2], whole[:2], atol=2e-6)
    assert not mixed[2].any()


@pytest.mark.parametrize("form", [cached.row_by_row, cached.rows_at_once])
def test_a_row_does_not_depend_on_longer_ones_or_on_what_follows_it(full, form):
    """Bit for bit, in one compiled program."""
    run = jax.jit(form)
    query = normal(ROWS, HEADS, WIDTH, seed=2)
    alive = jnp.ones(ROWS, bool)
    expected = run(query, full, jnp.asarray(SLOTS), alive)
    longer = jnp.asarray([SLOTS[0], LENGTH - 1, LENGTH - 2])
    np.testing.assert_array_equal(run(query, full, longer, alive)[0], expected[0])
    other = LayerCache(*(one.at[:, :, BLOCK:].add(100.0) for one in full))
    np.testing.assert_array_equal(run(query, other, longer, alive)[0], expected[0])


def test_what_rows_have_alike_is_read_once_and_changes_nothing(full):
    """Bit for bit; a row that is not alive, or stands elsewhere, is read for others too."""
    run = jax.jit(lambda alike, slots, alive: cached.row_by_row(
        query, same, slots, alive, cached.order_blocks(alike, slots, alive)
    ))  # fmt: skip
    query = normal(ROWS, HEADS, WIDTH, seed=2)
    same = LayerCache(*(one.at[1:, :, : 2 * BLOCK].set(one[0, :, : 2 * BLOCK]) for one in full))
    own = np.repeat(np.arange(ROWS)[:, None], LENGTH // BLOCK, axis=1)
    alike = own.copy()
    alike[1:, :2] = 0
    cases = [
        ([5, LENGTH - 1, 2 * BLOCK], [True] * 3),
        ([LENGTH - 1, 9, BLOCK], [False, True, True]),
    ]
    for slots, alive in cases:
        rest = jnp.asarray(slots), jnp.asarray(alive)
        expected = np.asarray(run(own, *rest))
        np.testing.assert_array_equal(run(alike, *rest), expected)
        whole = reference(query[:, None], same, rest[0][:, None])[:, 0]
        np.testing.assert_allclose(expected[alive], whole[np.asarray(alive)], atol=2e-6)
    order = cached.order_blocks(jnp.asarray(alike), *(jnp.asarray(part) for part in cases[1]))
    pairs = int(order.count)
    assert order.source[:pairs].tolist() == [0, 0] and order.rows[:3].tolist() == [1, 2, 2]


def test_written_tokens_stand_where_they_should(full):
    key, value = normal(ROWS, KV, WIDTH), normal(ROWS, KV, WIDTH, seed=3)
    after = write_tokens(full, key, value, jnp.asarray(SLOTS))
    for before, new, found in zip(full, (key, value), after, strict=True):
        expected = np.array(before)
        expected[np.arange(ROWS), :, SLOTS] = new
        np.testing.assert_array_equal(found, expected)


def test_a_written_piece_stands_where_it_should(full):
    key, value = normal(7, KV, WIDTH), normal(7, KV, WIDTH, seed=3)
    after = write_chunk(full, key, value, jnp.int32(1), jnp.int32(9))
    for before, new, found in zip(full, (key, value), after, strict=True):
        expected = np.array(before)
        expected[1, :, 9:16] = new.swapaxes(0, 1)
        np.testing.assert_array_equal(found, expected)
