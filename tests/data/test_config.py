"""The data config refuses what cannot be."""

import pytest

from tulu_jax.data.config import DataConfig
from tulu_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("length", 0, "length is out of range - got 0 - expected a whole number of at least 1"),
        ("batch_size", 1.5, "batch_size is out of range - got 1.5"),
        ("epochs", 0, "epochs is out of range"),
        ("seed", None, "seed is out of range - got None"),
        ("heldout_examples", -1, "heldout_examples is out of range"),
        ("packing", "tight", "unknown packing - got 'tight' - expected best_fit or padded"),
        ("encoding", "HF", "unknown encoding - got 'HF' - expected hf or paper"),
        ("mixture", "", "mixture is not set"),
        ("tokenizer", None, "tokenizer is not set"),
        ("tokenizer", "gs://bucket/tok", "TOKENIZER is an address, not a path of this machine"),
        ("data_dir", " ", "DATA_DIR names no file or folder"),
        ("raw_dir", 5, "DataConfig.raw_dir is not text - got 5"),
        ("seed", 2**65, "DataConfig.seed is out of range"),
        ("seeds", {"tulu_dolly": 1}, "seeds are given but not used - got seeds of tulu_dolly"),
        ("rate_scale", float("inf"), "rate_scale is out of range"),
    ],
)
def test_impossible_values(field, value, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**{"mixture": "tulu_demo", "tokenizer": "t", field: value})
