"""Small stores for the tests of this room."""

import numpy as np

from tulu_jax.data.store import Example, write_store

META = {
    "task": "tulu_small",
    "split": "train",
    "vocab_size": 1000,
    "expected_examples": None,
    "counts": {"read": 0, "truncated": 0, "dropped": {}},
}


def make_examples(lengths, *, seed=0, vocab_size=1000, name="a"):
    """Examples of these lengths with tokens of their own and loss on the second half."""
    rng = np.random.default_rng(seed)
    return [
        Example(
            f"{name}_{i}",
            rng.integers(1, vocab_size, n).astype(np.int32),
            np.arange(n) >= n // 2,
        )
        for i, n in enumerate(lengths)
    ]


def small_store(path, lengths, **kwargs):
    """A store of `make_examples(lengths)`, and the examples themselves."""
    examples = make_examples(lengths, **kwargs)
    return write_store(path, examples, meta=META), examples


def store_ids(rows, batch):
    """For each position of the batch the index of its example's store; -1 for padding."""
    of = {
        tuple(tokens.tolist()): index
        for index, store in enumerate(rows.stores)
        for tokens, _ in store
    }
    ids = np.full_like(batch["tokens"], -1)
    for row, segments in enumerate(batch["segment_ids"]):
        for number in range(1, segments.max() + 1):
            mine = segments == number
            ids[row, mine] = of[tuple(batch["tokens"][row, mine].tolist())]
    return ids
