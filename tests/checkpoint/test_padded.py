"""Rows that stand for no token, on request."""

import numpy as np
import pytest

from tulu_jax.checkpoint import hf, padded
from tulu_jax.checkpoint.arrays import TreeReader
from tulu_jax.errors import ConfigError

from .hf.small import CONFIG, TIED, random_params


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("block", [7, 1024])
def test_the_vocabulary_is_rounded_up(tmp_path, monkeypatch, config, block):
    monkeypatch.setattr(padded, "_BLOCK", block)
    params = random_params(config)  # 50 tokens
    reader = padded.padded(TreeReader(params), config, 64)
    hf.save(tmp_path / "x", reader.config, reader)
    found, again = hf.load(tmp_path / "x")
    assert found.vocab_size == 64
    table = params["embedding"].astype(np.float64)
    assert np.array_equal(again["embedding"][:50], params["embedding"])
    np.testing.assert_allclose(again["embedding"][50:], [table.mean(0)] * 14, atol=1e-6)
    if not config.tie_embeddings:
        assert np.array_equal(again["lm_head"][:, :50], params["lm_head"])
        mean = params["lm_head"].astype(np.float64).mean(1)
        np.testing.assert_allclose(again["lm_head"][:, 50:].T, [mean] * 14, atol=1e-6)
    assert np.array_equal(again["layers"]["mlp"]["up"], params["layers"]["mlp"]["up"])
    whole = reader.read(("embedding",))
    for start, stop in ((0, 50), (40, 60), (50, 51), (55, 64)):
        part = reader.read_part(("embedding",), start, stop)
        assert np.array_equal(part, whole[start:stop])


def test_a_multiple_already(tmp_path):
    params = random_params(CONFIG)
    reader = padded.padded(TreeReader(params), CONFIG, 25)
    assert reader.config == CONFIG
    assert np.array_equal(reader.read(("lm_head",)), params["lm_head"])
    with pytest.raises(ConfigError, match=r"--pad_vocab_to is out of range - got 0"):
        padded.padded(reader, CONFIG, 0)
