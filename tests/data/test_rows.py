"""Rows and batches: a pure function of the step, the same for any number of hosts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.fixtures import small_store
from tulu_jax.axes import BATCH_KEYS
from tulu_jax.data.loader import open_batches
from tulu_jax.data.packing import pack
from tulu_jax.data.rows import RowSource, choose_heldout, make_rows
from tulu_jax.errors import ConfigError, DataError

LENGTHS = [3, 4, 8, 2, 6, 1, 5, 5, 7, 2, 3]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    one, _ = small_store(folder / "one", LENGTHS)
    two, _ = small_store(folder / "two", [2, 8, 1, 4], seed=5, name="b")
    return one, two


def examples_in(batch):
    """The token tuples of every segment of the batch."""
    found = []
    for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True):
        for number in range(1, segments.max() + 1):
            found.append(tuple(tokens[segments == number].tolist()))
    return found


def test_one_row_holds_its_examples_side_by_side(stores):
    rows = make_rows(stores[:1], row_length=8)
    for index in range(rows.num_rows):
        row = rows.row(index)
        at = 0
        for segment, example in enumerate(rows.plan.row(index), start=1):
            tokens, mask = stores[0][int(example)]
            place = slice(at, at + len(tokens))
            assert np.array_equal(row["tokens"][place], tokens)
            assert np.array_equal(row["loss_mask"][place], mask)
            assert (row["segment_ids"][place] == segment).all()
            assert np.array_equal(row["positions"][place], np.arange(len(tokens)))
            at += len(tokens)
        assert (row["tokens"][at:] == 0).all()
        assert all(not row[name][at:].any() for name in BATCH_KEYS[1:])
        assert all(row[name].dtype == np.int32 and row[name].shape == (8,) for name in BATCH_KEYS)


def test_worked_example_of_the_docstring(tmp_path):
    store, _ = small_store(tmp_path / "s", [3, 4])
    plan = pack(store.lengths, 8, mode="best_fit")
    row = RowSource([store], plan).row(0)
    assert row["segment_ids"].tolist() == [1, 1, 1, 1, 2, 2, 2, 0]
    assert row["positions"].tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert row["loss_mask"].tolist() == [0, 0, 1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("packing", ["best_fit", "padded"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_each_example_is_seen_once_per_epoch(stores, packing, batch_size):
    rows = make_rows(stores, row_length=8, packing=packing, epochs=2, seed=7)
    seen = []
    for step in range(rows.num_steps(batch_size)):
        seen += examples_in(rows.batch(step, batch_size))
    every = [tuple(tokens.tolist()) for store in stores for tokens, _ in store]
    assert sorted(seen) == sorted(every * 2)
    beyond = rows.batch(rows.num_steps(batch_size), batch_size)
    assert not beyond["segment_ids"].any() and not beyond["loss_mask"].any()


def test_epochs_have_orders_of_their_own(stores):
    rows = make_rows(stores, row_length=8, seed=7)
    assert rows.num_steps(4) is None
    orders = [tuple(rows.epoch_rows(epoch)) for epoch in range(4)]
    assert len(set(orders)) > 1
    assert all(sorted(order) == list(range(rows.num_rows)) for order in orders)
    again = make_rows(stores, row_length=8, seed=7)
    assert tuple(again.epoch_rows(3)) == orders[3]
    assert tuple(make_rows(stores, row_length=8, seed=8).epoch_rows(0)) != orders[0]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_the_batch(stores, hosts):
    rows = make_rows(stores, row_length=8, epochs=3, seed=1)
    for step in range(rows.num_steps(4)):
        whole = rows.batch(step, 4)
        parts = [rows.batch(step, 4, process_index=i, process_count=hosts) for i in range(hosts)]
        for name in BATCH_KEYS:
            assert np.array_equal(np.concatenate([part[name] for part in parts]), whole[name])


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 12), hosts=st.sampled_from([1, 2]))
def test_a_loader_opened_anywhere_goes_on_from_there(stores, start, hosts):
    rows = make_rows(stores, row_length=8, epochs=4, seed=3)
    batches = open_batches(
        rows, batch_size=4, start_step=start, process_index=hosts - 1, process_count=hosts
    )
    step = start
    for step, batch in enumerate(batches, start=start):
        expected = rows.batch(step, 4, process_index=hosts - 1, process_count=hosts)
        assert batch.keys() == expected.keys()
        assert all(np.array_equal(batch[name], expected[name]) for name in expected)
    assert batches.next_step == max(start, rows.num_steps(4))
    assert step == max(start, rows.num_steps(4) - 1)


def test_a_loader_without_end_can_be_closed(stores):
    rows = make_rows(stores, row_length=8)
    batches = open_batches(rows, batch_size=2, start_step=10**9)
    assert np.array_equal(next(batches)["tokens"], rows.batch(10**9, 2)["tokens"])
    assert batches.next_step == 10**9 + 1
    batches.close()


def test_batch_that_does_not_divide(stores):
    rows = make_rows(stores, row_length=8)
    with pytest.raises(ConfigError, match=r"does not divide among the hosts - got 3 rows"):
        rows.batch(0, 3, process_index=0, process_count=2)
    with pytest.raises(ConfigError, match=r"does not divide .* multiple of 2 - change BATCH_SIZE"):
        open_batches(rows, batch_size=3, process_count=2)


def test_heldout_is_apart_from_training(stores):
    kept, out = choose_heldout(stores[0], 4, seed=1)
    assert len(out) == 4 and sorted([*kept, *out]) == list(range(len(LENGTHS)))
    assert np.array_equal(choose_heldout(stores[0], 4, seed=1)[1], out)
    assert not np.array_equal(choose_heldout(stores[0], 4, seed=2)[1], out)
    assert set(choose_heldout(stores[0], 3, seed=1)[1]) < set(out)
    train = make_rows(stores[:1], row_length=8, examples=kept, epochs=1)
    held = make_rows(stores[:1], row_length=8, examples=out, epochs=1)
    seen = examples_in(train.batch(0, train.num_rows))
    other = examples_in(held.batch(0, held.num_rows))
    assert len(seen) == len(kept) and not set(seen) & set(other)
    assert len(choose_heldout(stores[0], 0, seed=1)[1]) == 0
    with pytest.raises(ConfigError, match=r"heldout_examples takes all .* expected at most 10"):
        choose_heldout(stores[0], 11, seed=1)


def test_plan_of_other_examples(stores):
    with pytest.raises(DataError, match=r"packing plan is not of these examples - got 1 packed"):
        RowSource(stores, pack(np.array([3]), 8))
    empty = np.array([], dtype=int)
    with pytest.raises(DataError, match=r"no rows - got 0 examples"):
        make_rows(stores, row_length=8, examples=empty)
