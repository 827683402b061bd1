import ml_dtypes
import numpy as np
import pytest

from tulu_jax.checkpoint import hf, resize
from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.checkpoint.reader import TreeReader
from tulu_jax.checkpoint.resize import padded, resized
from tulu_jax.errors import CheckpointError, ConfigError

from .hf.small import CONFIG, TIED, random_params, write_folder


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_new_rows_are_the_mean(tmp_path, config):
    reader = resized(hf.open_folder(write_folder(tmp_path / "x", config)), 53)
    assert reader.config.vocab_size == 53
    old = random_params(config)
    table = reader.read(("embedding",))
    assert np.array_equal(table[:50], old["embedding"])
    mean = old["embedding"].astype(np.float64).mean(0).astype(np.float32)
    assert np.array_equal(table[50:], np.stack([mean] * 3))
    if not config.tie_embeddings:
        head = reader.read(("lm_head",))
        assert head.shape == (16, 53)
        assert np.array_equal(head[:, :50], old["lm_head"])
        assert np.array_equal(head[:, 51], old["lm_head"].astype(np.float64).mean(1).astype("f4"))
        assert np.array_equal(reader.read_slice(("lm_head",), (slice(2, 5), slice(48, 52))),
                              head[2:5, 48:52])  # fmt: skip
    for start, stop in ((0, 50), (49, 52), (50, 53), (51, 52)):
        assert np.array_equal(reader.read_part(("embedding",), start, stop), table[start:stop])


def test_example_of_the_docstring(tmp_path):
    import dataclasses

    config = dataclasses.replace(CONFIG, vocab_size=2, bos_id=0, eos_id=1)
    params = random_params(config)
    params["embedding"] = np.repeat(np.float32([[0, 2], [4, 6]]), 8, axis=1)
    hf.save(tmp_path / "x", config, params)
    rows = resized(hf.open_folder(tmp_path / "x"), 3).read(("embedding",))
    assert rows[:, [0, 8]].tolist() == [[0, 2], [4, 6], [2, 4]]


def test_through_a_checkpoint_and_out_again(tmp_path):
    write_folder(tmp_path / "x", dtype="bfloat16")
    reader = resized(hf.open_folder(tmp_path / "x", None), 51)
    save_params(tmp_path / "run", reader.lazy_params(), {})
    hf.save(tmp_path / "y", reader.config, CheckpointReader(tmp_path / "run"))
    config, params = hf.load(tmp_path / "y", None)
    assert (config.vocab_size, params["embedding"].shape) == (51, (51, 16))
    assert params["lm_head"].dtype == ml_dtypes.bfloat16
    assert np.array_equal(params["lm_head"], reader.read(("lm_head",)))


def test_what_needs_no_change_and_what_would_lose_rows(tmp_path):
    folder = hf.open_folder(write_folder(tmp_path / "x"))
    assert resized(folder, None) is folder
    assert resized(folder, 50) is folder
    assert "added 2 rows to the vocabulary of 50" in resized(folder, 52).notes[-1]
    with pytest.raises(CheckpointError, match=r"vocabulary would shrink - got 49 tokens"):
        resized(folder, 49)


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("block", [7, 1024])
def test_the_vocabulary_is_rounded_up(tmp_path, monkeypatch, config, block):
    monkeypatch.setattr(resize, "_BLOCK", block)
    params = random_params(config)  # 50 tokens
    reader = padded(TreeReader(params), config, 64)
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


def test_a_multiple_already():
    params = random_params(CONFIG)
    reader = padded(TreeReader(params), CONFIG, 25)
    assert reader.config == CONFIG
    assert np.array_equal(reader.read(("lm_head",)), params["lm_head"])
    with pytest.raises(ConfigError, match=r"--pad_vocab_to is out of range - got 0"):
        padded(reader, CONFIG, 0)
