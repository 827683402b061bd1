"""Hugging Face folder -> weights -> Hugging Face folder, for every family and dtype."""

import json

import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.models import config_to_dict

from .small import random_params, read_tensors, write_tensors
from .small_families import CONFIGS


def first_export(tmp_path, name, dtype):
    config = CONFIGS[name]
    return hf.save(tmp_path / "first", config, random_params(config), dtype=dtype).folder


def assert_same_tensors(left, right):
    one, two = (read_tensors(folder / "model.safetensors") for folder in (left, right))
    assert set(one) == set(two)
    for tensor in one:
        assert one[tensor].dtype == two[tensor].dtype
        assert one[tensor].tobytes() == two[tensor].tobytes(), tensor


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_bit_exact_through_memory(tmp_path, name, dtype):
    first = first_export(tmp_path, name, dtype)
    config, params = hf.load(first, dtype=None)
    assert config == CONFIGS[name]
    second = hf.save(tmp_path / "second", config, params).folder
    assert_same_tensors(first, second)
    assert (first / "config.json").read_text() == (second / "config.json").read_text()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["opt_350m", "neox"])
def test_bit_exact_through_orbax(tmp_path, name, dtype):
    first = first_export(tmp_path, name, dtype)
    folder = hf.open_folder(first, dtype=None)
    meta = {"model": config_to_dict(folder.config)}
    save_params(tmp_path / "run", folder.lazy_params(), meta)
    reader = CheckpointReader(tmp_path / "run")
    second = hf.save(tmp_path / "second", folder.config, reader, max_shard_bytes=1e9).folder
    assert_same_tensors(first, second)


def test_harmless_buffers_of_neox_are_left_out(tmp_path):
    first = first_export(tmp_path, "neox", "float32")
    tensors = read_tensors(first / "model.safetensors")
    buffers = {
        "gpt_neox.layers.0.attention.bias": np.tril(np.ones((1, 1, 32, 32), np.bool_)),
        "gpt_neox.layers.0.attention.masked_bias": np.array(-1e9, np.float32),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    write_tensors(first / "model.safetensors", {**tensors, **buffers})
    folder = hf.open_folder(first)
    assert any("ignored 3" in note for note in folder.notes)


def test_old_opt_files_without_prefix(tmp_path):
    first = first_export(tmp_path, "opt", "float32")
    tensors = read_tensors(first / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    write_tensors(first / "model.safetensors", bare)
    _, params = hf.load(first)
    assert np.array_equal(params["embedding"], tensors["model.decoder.embed_tokens.weight"])


@pytest.mark.parametrize("name", ["llama3", "opt_350m", "opt_without_final_norm", "neox_in_turn"])
def test_transformers_loads_the_folder(torch, tmp_path, name):
    transformers = pytest.importorskip("transformers")
    first = first_export(tmp_path, name, "float32")
    architecture = json.loads((first / "config.json").read_text())["architectures"][0]
    _, report = getattr(transformers, architecture).from_pretrained(first, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
