"""Rows that begin alike: what they share is fetched once, and no bit of an answer changes."""

import numpy as np

from tests.generate.test_engine import CONFIG, SHARED, random_params
from tulu_jax.generate import Engine, Sampling
from tulu_jax.generate.row_table import RowTable


def answers():
    engine = Engine(CONFIG, random_params(CONFIG), slots=len(SHARED), stop_ids=[])
    options = {"max_new_tokens": 20, "sampling": Sampling(1.0, 0.9), "seed": 3}
    return engine.generate(SHARED, **options)


def test_answers_are_those_of_rows_that_share_nothing(monkeypatch):
    sources, find = [], RowTable.alike

    def heard(table, size, blocks):
        sources.append(find(table, size, blocks))
        return sources[-1]

    def own(table, size, blocks):
        return np.repeat(np.arange(len(SHARED), dtype=np.int32)[:, None], blocks, axis=1)

    monkeypatch.setattr(RowTable, "alike", heard)
    together = answers()
    assert sources[-1][:, 0].tolist() == [0] * len(SHARED)
    assert sources[-1][:, 1].tolist() == [*range(len(SHARED))]
    monkeypatch.setattr(RowTable, "alike", own)
    for one, other in zip(together, answers(), strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs.tobytes() == other.logprobs.tobytes()
