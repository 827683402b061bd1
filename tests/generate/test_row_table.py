import itertools

import numpy as np

from tulu_jax.generate.row_table import RowTable

TOKENS = np.arange(100)


def test_whole_pieces_are_shared_by_copy_or_in_place():
    table = RowTable(3, 16)
    first = table.take(TOKENS)
    assert first[:3] == (0, 0, 0)
    table.hold(0, TOKENS)
    other = np.concatenate([TOKENS[:40], [7, 7]])
    assert table.take(other)[:3] == (1, 0, 32)
    table.hold(1, other)
    table.release(0)
    assert table.take(np.concatenate([TOKENS[:50], [7]]))[:3] == (0, 0, 48)


def test_the_end_is_shared_with_an_equal_prompt_only():
    table = RowTable(3, 16)
    table.take(TOKENS)
    table.hold(0, TOKENS)
    assert table.take(TOKENS)[:3] == (1, 0, 100)
    table.hold(1, TOKENS)
    assert table.take(TOKENS[:99])[:3] == (2, 0, 96)


def test_a_row_being_read_is_not_shared():
    table = RowTable(2, 16)
    table.take(TOKENS)
    assert table.take(TOKENS)[:3] == (1, 1, 0)


def test_the_row_that_is_free_longest_is_taken():
    table = RowTable(2, 16)
    for row in (0, 1):
        table.take(TOKENS[:5] + row)
        table.hold(row, TOKENS[:5] + row)
    assert table.num_free == 0
    table.release(1)
    table.release(0)
    assert table.num_free == 2
    assert table.take(TOKENS[50:]).row == 1


def test_nothing_is_held_after_forgetting():
    table = RowTable(1, 16)
    table.take(TOKENS)
    table.hold(0, TOKENS)
    table.release(0)
    table.forget()
    assert table.take(TOKENS)[:3] == (0, 0, 0)


def test_scored_pieces_are_shared_with_their_scores_where_the_token_after_them_is_equal():
    table = RowTable(4, 16)
    table.take(TOKENS, 1)
    table.hold(0, TOKENS, 1, ["a", "b", "c", "d", "e", "f", "g"])
    assert table.take(TOKENS[:33], 1)[1:] == (0, 32, ("a", "b"))
    assert table.take(np.concatenate([TOKENS[:32], [7, 7]]), 1)[1:] == (0, 16, ("a",))
    assert table.take(TOKENS, 1)[1:] == (0, 99, ("a", "b", "c", "d", "e", "f", "g"))


def test_scored_and_read_pieces_are_not_shared_with_each_other():
    table = RowTable(3, 16)
    table.take(TOKENS, 1)
    table.hold(0, TOKENS, 1, ["a"])
    assert table.take(TOKENS).num_tokens == 0
    assert table.take(TOKENS, 20).num_tokens == 0


def test_blocks_that_are_alike_are_those_that_were_read_in_whole_pieces_of_equal_beginnings():
    """Against all pairs of rows, looked at token by token."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        table, held = RowTable(5, 4), {}
        for row in range(5):
            tokens = rng.integers(0, 2, rng.integers(0, 40)) * (rng.random(1) < 0.2)
            tops = [None, 1][int(rng.integers(2))]
            table.take(tokens, tops)
            table.hold(row, tokens, tops)
            held[row] = tokens, tops
        alike = table.alike(8, 6)
        for (row, (mine, tops)), block in itertools.product(held.items(), range(6)):
            end = 8 * (block + 1)
            # A scored token's own score needs the one after it.
            last = end + 1 if tops is not None else end
            same = [
                other
                for other, (theirs, kind) in held.items()
                if kind == tops and min(mine.size, theirs.size) >= last
                and np.array_equal(mine[:last], theirs[:last])
            ]  # fmt: skip
            assert alike[row, block] == min([row, *same])


def test_rows_that_hold_something_else_are_no_longer_alike():
    table = RowTable(2, 4)
    for row in range(2):
        table.take(TOKENS)
        table.hold(row, TOKENS)
    assert table.alike(8, 2).tolist() == [[0, 0], [0, 0]]
    table.release(0)
    assert table.alike(8, 2).tolist() == [[0, 0], [0, 0]]
    table.take(TOKENS + 1)
    assert table.alike(8, 2).tolist() == [[0, 0], [1, 1]]
    table.hold(0, TOKENS)
    table.forget()
    assert table.alike(8, 2).tolist() == [[0, 0], [1, 1]]
