"""Packing: every example once, no row too long, the same plan every time."""

import doctest
import hashlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_jax.data import packing, rows
from tulu_jax.data.packing import pack
from tulu_jax.errors import ConfigError, DataError


def test_worked_examples():
    assert doctest.testmod(packing).failed == 0
    assert doctest.testmod(packing).attempted >= 3
    assert doctest.testmod(rows).failed == 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 32), max_size=60),
    st.sampled_from(["best_fit", "padded"]),
    st.integers(0, 3),
)
def test_every_example_lies_whole_in_one_row(lengths, mode, seed):
    lengths = np.array(lengths, dtype=np.int32)
    plan = pack(lengths, 32, mode=mode, seed=seed)
    assert sorted(plan.examples.tolist()) == list(range(len(lengths)))
    sums = [lengths[plan.row(i)].sum() for i in range(plan.num_rows)]
    assert all(0 < total <= 32 for total in sums)
    assert plan.tokens == lengths.sum() == sum(sums)
    if mode == "best_fit" and plan.num_rows > 1:
        # No two rows could be one: best fit would not have opened the second.
        assert sum(sorted(sums)[:2]) > 32
    again = pack(lengths, 32, mode=mode, seed=seed)
    assert np.array_equal(plan.examples, again.examples)
    assert np.array_equal(plan.starts, again.starts)


def one_by_one(lengths, row_length, seed):
    """Best-fit decreasing as its definition says, one example after the other."""
    mixed = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(lengths))
    order = mixed[np.argsort(-lengths[mixed], kind="stable")]
    rows, spaces, touched = [], [], []
    for now, example in enumerate(order.tolist()):
        fitting = [r for r in range(len(rows)) if spaces[r] >= lengths[example]]
        if fitting:  # the fullest; of equally full ones the one last used
            row = min(fitting, key=lambda r: (spaces[r], -touched[r]))
        else:
            row = len(rows)
            rows.append([])
            spaces.append(row_length)
            touched.append(0)
        rows[row].append(example)
        spaces[row] -= lengths[example]
        touched[row] = now
    return rows


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(0, 3))
def test_runs_of_equal_lengths_pack_as_one_by_one_would(data, row_length, seed):
    lengths = data.draw(st.lists(st.integers(1, row_length), min_size=1, max_size=80))
    lengths = np.array(lengths, dtype=np.int32)
    plan = pack(lengths, row_length, seed=seed)
    rows = [plan.row(i).tolist() for i in range(plan.num_rows)]
    assert rows == one_by_one(lengths, row_length, seed)


def test_the_plan_of_a_seed_stays_what_it_is():
    lengths = np.random.default_rng(0).lognormal(4.6, 0.8, 5000).clip(8, 512).astype(np.int32)
    plan = pack(lengths, 512, seed=42)
    content = plan.examples.tobytes() + plan.starts.tobytes()
    assert plan.examples.dtype == np.int32 and plan.starts.dtype == np.int64
    assert hashlib.sha256(content).hexdigest().startswith("23dab33171c18603")


def test_padded_gives_each_example_its_row():
    plan = pack(np.array([3, 9, 1]), 10, mode="padded")
    assert [plan.row(i).tolist() for i in range(3)] == [[0], [1], [2]]
    assert plan.efficiency == pytest.approx(13 / 30)


def test_seed_decides_among_equal_lengths():
    lengths = np.full(64, 5)
    one, two = pack(lengths, 10, seed=1), pack(lengths, 10, seed=2)
    assert one.num_rows == two.num_rows == 32
    assert not np.array_equal(one.examples, two.examples)


def test_realistic_lengths_fill_the_rows_fast():
    lengths = np.random.default_rng(0).lognormal(4.6, 0.8, 500_000).clip(8, 2048).astype(int)
    start = time.process_time()
    plan = pack(lengths, 2048)
    assert time.process_time() - start < 2
    assert plan.efficiency > 0.99 and len(plan.examples) == 500_000


def test_no_example_gives_no_row():
    plan = pack(np.array([], dtype=int), 8)
    assert plan.num_rows == 0 and plan.efficiency == 0.0


def test_errors():
    with pytest.raises(DataError, match=r"does not fit a row - got 9 tokens \(1 such .* example 1"):
        pack(np.array([3, 9]), 8)
    with pytest.raises(DataError, match=r"example does not fit a row - got 0 tokens"):
        pack(np.array([0]), 8)
    with pytest.raises(
        ConfigError, match=r"unknown packing mode - got 'tight' .*best_fit or padded"
    ):
        pack(np.array([1]), 8, mode="tight")
