"""Held-out examples that are trained on too are counted, token for token and mask for mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.fixtures import META
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import assemble
from tulu_jax.data.measured_twice import notes_on_measured, trained_too
from tulu_jax.data.mixtures import Component
from tulu_jax.data.store import Example, write_store

TEXTS = ([5, 6, 7], [5, 6, 8], [5, 6, 7, 9], [6, 5, 7], [0, 1, 2], [1, 1])


def example(name, tokens, trained=1):
    tokens = np.array(tokens, np.int32)
    return Example(name, tokens, np.arange(len(tokens)) >= len(tokens) - trained)


def store(folder, examples, task="tulu_small"):
    meta = {**META, "task": task}
    return write_store(folder / task, [example(f"{task}_{i}", *e) for i, e in examples], meta=meta)


@pytest.fixture
def small(tmp_path):
    """Examples 0 and 3 are the same; 5 has the tokens of 0 and another mask."""
    contents = [(TEXTS[0],), (TEXTS[1],), (TEXTS[2],), (TEXTS[0],), (TEXTS[3],), (TEXTS[0], 2)]
    return store(tmp_path, enumerate(contents))


def test_only_the_same_tokens_with_the_same_mask_count(small):
    def count(measured, trained):
        parts = {"tulu_small": (small, np.array(measured, np.int64))}
        return trained_too(parts, [(small, np.array(trained, np.int64))])

    assert count([0], [1, 2, 3, 4, 5]) == {"tulu_small": 1}
    assert count([0], [1, 2, 4, 5]) == {}
    assert count([0, 3, 4], [0, 3]) == {"tulu_small": 2}
    assert count([5], [0, 1, 2, 3, 4]) == {}
    assert count([], [0]) == {} and count([0], []) == {}
    assert trained_too({}, [(small, np.arange(6))]) == {}


def test_those_of_another_task_count_too(small, tmp_path):
    other = store(tmp_path, enumerate([([7, 7],), (TEXTS[2],)]), task="tulu_other")
    measured = {"tulu_small": (small, np.array([2, 1])), "tulu_other": (other, np.array([0]))}
    assert notes_on_measured(measured, [(small, np.array([0, 3])), (other, np.array([1]))]) == [
        "held-out: 1 of the 2 examples of tulu_small are trained on too, token for token: their "
        "loss tells what was learnt by heart"
    ]


@given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=2, max_size=12), st.integers(0, 2**12))
@settings(max_examples=20, deadline=None)
def test_as_a_comparison_of_every_pair_says(tmp_path_factory, texts, out):
    found = store(tmp_path_factory.mktemp("s"), enumerate((TEXTS[i],) for i in texts))
    measured = [i for i in range(len(texts)) if out >> i & 1]
    trained = [i for i in range(len(texts)) if not out >> i & 1]
    count = sum(any(texts[i] == texts[j] for j in trained) for i in measured)
    parts = {"t": (found, np.array(measured, np.int64))}
    assert trained_too(parts, [(found, np.array(trained, np.int64))]) == (
        {"t": count} if count else {}
    )


def test_a_run_says_it(tmp_path):
    """It did not: a set of doubled rows had a held-out loss as if it had been learnt."""
    talks = [([5 + i // 2, 9, 7],) for i in range(20)]
    twice = store(tmp_path, enumerate(talks))

    def notes(store, **changes):
        config = DataConfig(mixture="small", tokenizer="t", length=8, batch_size=2, epochs=1,
                            **changes)  # fmt: skip
        part = Component(task="tulu_small", seed=42)
        return assemble(config, [part], {"tulu_small": {"train": store}}, None).notes

    assert any("held-out: " in note for note in notes(twice, heldout_examples=3))
    assert notes(twice) == []
    once = store(tmp_path / "once", enumerate(talks[::2]))
    assert notes(once, heldout_examples=3) == []
