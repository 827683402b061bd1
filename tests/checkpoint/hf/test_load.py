import ml_dtypes
import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.reader import TreeReader
from tulu_jax.errors import CheckpointError

from .small import (
    CONFIG,
    TIED,
    edit_config,
    random_params,
    read_tensors,
    write_folder,
    write_tensors,
)

QUERY = "model.layers.1.self_attn.q_proj.weight"


def same(left, right):
    left, right = TreeReader(left), TreeReader(right)
    assert left.paths() == right.paths() or set(left.paths()) == set(right.paths())
    for path in left.paths():
        assert left.read(path).dtype == right.read(path).dtype
        np.testing.assert_array_equal(left.read(path), right.read(path))


@pytest.mark.parametrize("config", [CONFIG, TIED])
@pytest.mark.parametrize("max_shard_bytes", [1e9, 2000])
def test_round_trip_is_exact(tmp_path, config, max_shard_bytes):
    write_folder(tmp_path / "x", config, max_shard_bytes=max_shard_bytes)
    loaded, params = hf.load(tmp_path / "x")
    assert loaded == config
    same(params, random_params(config))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes(tmp_path, dtype):
    write_folder(tmp_path / "x", dtype=dtype)
    numpy_dtype = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    exact = random_params(CONFIG)["layers"]["mlp"]["up"].astype(numpy_dtype)
    kept = hf.load(tmp_path / "x", dtype=None)[1]["layers"]["mlp"]["up"]
    assert kept.dtype == numpy_dtype
    np.testing.assert_array_equal(kept, exact)
    wide = hf.load(tmp_path / "x")[1]["layers"]["mlp"]["up"]
    np.testing.assert_array_equal(wide, exact.astype(np.float32))


def test_float16_that_would_overflow_is_refused(tmp_path):
    params = random_params(CONFIG)
    params["lm_head"][0, 0] = 1e6
    with pytest.raises(CheckpointError, match="do not fit float16 - got largest magnitude 1e"):
        hf.save(tmp_path / "x", CONFIG, params, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_unknown_dtype(tmp_path):
    write_folder(tmp_path / "x")
    with pytest.raises(CheckpointError, match="unknown dtype - got 'int8' - expected float32 or"):
        hf.load(tmp_path / "x", dtype="int8")


def spoil(folder, change):
    tensors = read_tensors(folder / "model.safetensors")
    change(tensors)
    write_tensors(folder / "model.safetensors", tensors)


def rotary(tensors, rates=(1, 0.01), dtype=np.float32):
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.array(rates, dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(QUERY), f"1 tensor is missing - got none named {QUERY} at"),
        (lambda t: t.clear() or t.update(x=np.zeros(1)), "21 tensors are missing .* and 16 more"),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(3)}),
            "1 tensor is not part of the model .* got model.layers.0.self_attn.q_proj.bias",
        ),
        (
            lambda t: t.update({QUERY: np.zeros((24, 17), np.float32)}),
            rf"1 tensor is misshapen - got {QUERY} \[24, 17\] .* \[24, 16\], as config.json",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, change, message):
    spoil(write_folder(tmp_path / "x"), change)
    with pytest.raises(CheckpointError, match=message):
        hf.load(tmp_path / "x")


def test_truncated_file(tmp_path):
    file = write_folder(tmp_path / "x") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="safetensors file is truncated"):
        hf.load(tmp_path / "x")


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        hf.load(tmp_path / "x")


def test_harmless_extra_tensors_are_noted(tmp_path):
    spoil(write_folder(tmp_path / "x"), rotary)
    folder = hf.open_folder(tmp_path / "x")
    assert folder.notes == ["ignored 1 rotary_emb.inv_freq tensors: config.json determines them"]
    same(hf.load(tmp_path / "x")[1], random_params(CONFIG))


@pytest.mark.parametrize(
    ("rates", "base"),
    [((1, 1e-3), "1e+06"), ((1, 1, 1), "1"), ((1, 0), "inf"), ((1, np.nan), "nan"),
     ((1, 0.01), None), ((0.5, 0.005), None), ((1,), None)],
)  # fmt: skip
def test_stored_rotary_rates_of_another_base_are_named(tmp_path, rates, base):
    spoil(write_folder(tmp_path / "x"), lambda tensors: rotary(tensors, rates, np.float16))
    more = hf.open_folder(tmp_path / "x").notes[1:]
    named = f"rotary_emb.inv_freq has the base {base}, config.json rope_theta=10000, which counts"
    assert [note.split(":")[0] for note in more] == ([named] if base else [])


def test_tied_head_that_is_there_must_equal_the_embedding(tmp_path):
    folder = write_folder(tmp_path / "x", TIED)
    spoil(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    assert "ignored lm_head.weight" in hf.open_folder(folder).notes[0]
    assert "lm_head" not in hf.load(folder)[1]
    spoil(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(CheckpointError, match="output head differs from the embedding"):
        hf.load(folder)


def test_config_of_another_model(tmp_path):
    edit_config(write_folder(tmp_path / "x"), num_hidden_layers=1)
    with pytest.raises(CheckpointError, match="9 tensors are not part of the model"):
        hf.load(tmp_path / "x")
    edit_config(tmp_path / "x", num_hidden_layers=2, vocab_size=51)
    with pytest.raises(CheckpointError, match=r"2 tensors are misshapen .* \[51, 16\]"):
        hf.load(tmp_path / "x")
