"""The data config refuses what cannot be."""

import pytest

from tulu_jax.data.config import DataConfig
from tulu_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("length", 0, "DataConfig.length is out of range - got 0 - expected 1 or more"),
        ("batch_size", 1.5, "DataConfig.batch_size is not a whole number - got 1.5"),
        ("epochs", 0, "epochs is out of range"),
        ("seed", None, "DataConfig.seed is not a whole number - got None"),
        ("heldout_examples", -1, "heldout_examples is out of range"),
        ("packing", "tight", "packing is unknown - got 'tight' - expected best_fit or padded"),
        ("encoding", "HF", "DataConfig.encoding is unknown - got 'HF' - expected hf or paper"),
        ("mixture", "", "mixture is not set"),
        ("tokenizer", None, "tokenizer is not set"),
        ("tokenizer", "az://bucket/tok", "TOKENIZER is an address that is not supported"),
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
