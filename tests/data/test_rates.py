"""Rates: fixed shares, nothing repeated early, the same batch whoever asks and whenever."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.fixtures import small_store, store_ids
from tulu_jax.axes import BATCH_KEYS
from tulu_jax.data import rates
from tulu_jax.data.loader import open_batches
from tulu_jax.data.rates import apportion, make_rated_rows, size_rate
from tulu_jax.data.rows import choose_examples, make_rows
from tulu_jax.errors import ConfigError

SIZES = (40, 16, 7)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)
    return [
        small_store(folder / name, rng.integers(2, 9, size).tolist(), seed=i, name=name)[0]
        for i, (name, size) in enumerate(zip("abc", SIZES, strict=True))
    ]


def rated(stores, weights, *, packing="padded", seed=3, epochs=None, seeds=None, **more):
    chosen = more.pop("examples", [np.arange(len(store)) for store in stores])
    seeds = seeds or [seed] * len(stores)
    return make_rated_rows(
        stores, examples=chosen, rates=weights, seeds=seeds, row_length=8, packing=packing,
        seed=seed, epochs=epochs,
    )  # fmt: skip


def examples_in(batch, ids):
    """Store and tokens of every segment of the batch, in order."""
    found = []
    for tokens, segments, owner in zip(batch["tokens"], batch["segment_ids"], ids, strict=True):
        for number in range(1, segments.max() + 1):
            mine = segments == number
            (store,) = set(owner[mine].tolist())
            found.append((store, tuple(tokens[mine].tolist())))
    return found


def seen(rows, count, *, batch_size=4):
    found = []
    for step in range(count // batch_size):
        batch = rows.batch(step, batch_size)
        found += examples_in(batch, store_ids(rows, batch))
    return found


def test_worked_examples():
    assert doctest.testmod(rates).failed == 0 and doctest.testmod(rates).attempted >= 2


@pytest.mark.parametrize("packing", ["padded", "best_fit"])
def test_shares_are_as_asked(stores, packing):
    rows = rated(stores, [2.0, 1.0, 1.0], packing=packing)
    assert rows.num_rows == sum(source.num_rows for source in rows.sources)
    counts = np.bincount([store for store, _ in seen(rows, 40 * rows.num_rows)])
    assert counts / counts.sum() == pytest.approx([0.5, 0.25, 0.25], abs=0.03)
    told = [share.examples for share in rows.composition(40 * rows.num_rows)]
    assert told == counts.tolist()


def test_sizes_as_rates_are_one_pass_over_everything(stores):
    rows = rated(stores, [size_rate(len(store)) for store in stores])
    found = [tokens for _, tokens in seen(rows, rows.num_rows, batch_size=1)]
    every = [tuple(tokens.tolist()) for store in stores for tokens, _ in store]
    assert sorted(found) == sorted(every)
    assert [share.epochs for share in rows.composition()] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("packing", ["padded", "best_fit"])
def test_no_example_comes_again_before_all_have_come(stores, packing):
    rows = rated(stores, [1.0, 1.0, 5.0], packing=packing)
    found = seen(rows, 6 * rows.num_rows)
    for index, store in enumerate(stores):
        mine = [tokens for which, tokens in found if which == index]
        every = {tuple(tokens.tolist()) for tokens, _ in store}
        for start in range(0, len(mine) - len(store), len(store)):
            assert set(mine[start : start + len(store)]) == every


def test_every_batch_has_its_share(stores):
    """Low discrepancy: no stretch of rows is far from the shares asked for."""
    rows = rated(stores, [2.0, 1.0, 1.0])
    which = rows._order(0)[0]
    for share, index in zip([0.5, 0.25, 0.25], range(3), strict=True):
        before = np.cumsum(which == index)
        wanted = share * np.arange(1, len(which) + 1)
        assert abs(before - wanted).max() <= 2


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 40), hosts=st.sampled_from([1, 2, 4]))
def test_a_loader_opened_anywhere_by_any_number_of_hosts(stores, start, hosts):
    rows = rated(stores, [1.0, 3.0, 2.0], packing="best_fit", epochs=2)
    parts = [
        open_batches(rows, batch_size=4, start_step=start, process_index=index, process_count=hosts)
        for index in range(hosts)
    ]
    for step in range(start, rows.num_steps(4)):
        whole = rows.batch(step, 4)
        got = [next(part) for part in parts]
        for name in BATCH_KEYS:
            assert np.array_equal(np.concatenate([part[name] for part in got]), whole[name])
    assert all(next(part, None) is None for part in parts)


def test_past_the_end_is_padding(stores):
    rows = rated(stores, [1.0, 1.0, 1.0], epochs=1)
    beyond = rows.batch(rows.num_steps(4), 4)
    assert all(beyond[name].shape == (4, 8) and not beyond[name].any() for name in BATCH_KEYS)
    far = rated(stores, [1.0, 1.0, 1.0]).batch(10**8, 4)
    assert far["segment_ids"].any()


def test_epochs_differ_and_seeds_decide(stores):
    rows = rated(stores, [1.0, 1.0, 1.0])
    first, second = (rows.at(np.arange(rows.num_rows) + e * rows.num_rows) for e in (0, 1))
    assert not np.array_equal(first["tokens"], second["tokens"])
    again = rated(stores, [1.0, 1.0, 1.0]).at(np.arange(rows.num_rows))
    assert np.array_equal(first["tokens"], again["tokens"])
    other = rated(stores, [1.0, 1.0, 1.0], seed=4).at(np.arange(rows.num_rows))
    assert not np.array_equal(first["tokens"], other["tokens"])


def test_a_datasets_order_depends_on_no_other(stores):
    """Of one dataset the same examples come in the same order, whatever it is mixed with."""

    def first_of_b(rows, index):
        return [tokens for which, tokens in seen(rows, 64) if which == index][:10]

    mixed, alone = rated(stores, [1.0, 1.0, 1.0]), rated(stores[1:2], [1.0])
    assert first_of_b(mixed, 1) == first_of_b(alone, 0)


def test_composition_counts_what_is_shown(stores):
    for rows in (
        rated(stores, [1.0, 2.0, 1.0], packing="best_fit"),
        make_rows(stores, row_length=8, seed=3),
        make_rows(stores, row_length=8, seed=3, examples=np.arange(0, 60, 2)),
    ):
        for count in (1, 5, rows.num_rows, 2 * rows.num_rows + 7):
            batch = rows.at(np.arange(count))
            ids = store_ids(rows, batch)
            for index, share in enumerate(rows.composition(count)):
                assert share.tokens == (ids == index).sum()
                assert share.loss_tokens == batch["loss_mask"][ids == index].sum()
                starts = (batch["positions"] == 0) & (ids == index)
                assert share.examples == starts.sum()
    assert [share.available for share in rows.composition()] == [20, 8, 2]


def test_choice_of_examples(stores):
    every = np.arange(len(stores[0]))
    ten = choose_examples(stores[0].ids, every, 10, seed=1)
    assert len(ten) == 10 and sorted(set(ten)) == ten.tolist()
    assert set(choose_examples(stores[0].ids, every, 5, seed=1)) < set(ten)
    assert set(choose_examples(stores[0].ids, every, 10, seed=2)) != set(ten)
    left = np.setdiff1d(every, ten)
    assert not set(choose_examples(stores[0].ids, left, 10, seed=1)) & set(ten)
    assert np.array_equal(choose_examples(stores[0].ids, every, 10**6, seed=1), every)
    rows = rated(stores[:1], [1.0], examples=[ten])
    assert rows.num_rows == 10


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=9), st.integers(0, 500))
def test_apportion(weights, total):
    weights = np.array(weights)
    counts = apportion(weights, total)
    assert counts.sum() == total and (abs(counts - weights / weights.sum() * total) < 1).all()


def test_rates_by_size_are_those_of_seqio():
    assert size_rate(100) == 100.0
    assert size_rate(100, maximum=10, temperature=2.0, scale=3.0) == pytest.approx(10**0.5)


def test_a_rate_too_small(stores):
    with pytest.raises(
        ConfigError, match=r"rate is too small: .* no row in an epoch - got 1e-09 at task"
    ):
        rated(stores, [1.0, 1e-9, 1.0])
