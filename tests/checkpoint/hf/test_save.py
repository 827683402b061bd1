import dataclasses
import errno
import hashlib
import importlib
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.chat import load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.hf.save import MARKER
from tulu_jax.errors import CheckpointError

from .small import CONFIG, random_params, read_tensors, write_folder

save_module = importlib.import_module("tulu_jax.checkpoint.hf.save")
"""The module, which the function of the same name hides."""


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_and_checksums(tmp_path):
    saved = hf.save(tmp_path / "a" / "x", CONFIG, random_params(CONFIG))
    assert files(tmp_path / "a") == ["x"]
    assert files(saved.folder) == ["config.json", "generation_config.json", "model.safetensors"]
    for name, checksum in saved.checksums.items():
        assert hashlib.sha256((saved.folder / name).read_bytes()).hexdigest() == checksum
    assert set(saved.checksums) == set(files(saved.folder))
    assert saved.num_bytes == 4 * CONFIG.num_params


def test_shards_and_index(tmp_path):
    folder = write_folder(tmp_path / "x", max_shard_bytes=2000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * CONFIG.num_params
    for name, file in index["weight_map"].items():
        assert name in read_tensors(folder / file)
    assert "model.safetensors" not in files(folder)


def test_device_arrays_and_dtype_of_the_source(tmp_path):
    params = random_params(CONFIG)
    params["embedding"] = jnp.asarray(params["embedding"], jnp.bfloat16)
    folder = hf.save(tmp_path / "x", CONFIG, params).folder
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert hf.open_folder(folder).stored_dtype() == jnp.bfloat16


def test_progress_ends_at_the_whole(tmp_path):
    seen = []
    write_folder(tmp_path / "x", on_progress=lambda *report: seen.append(report))
    assert seen[-1][1] == seen[-1][2] == 4 * CONFIG.num_params
    assert seen[0][0] == "model.embed_tokens.weight"


class CountingReader:
    """Hands out arrays and knows how many bytes of them are alive at most."""

    def __init__(self, params):
        self.inner = save_module.TreeReader(params)
        self.alive = []
        self.most = 0

    def paths(self):
        return self.inner.paths()

    def read(self, path):
        import gc
        import weakref

        array = self.inner.read(path).copy()
        self.alive.append(weakref.ref(array))
        gc.collect()
        self.most = max(self.most, sum(ref() is not None for ref in self.alive))
        return array


def test_one_parameter_is_held_at_a_time(tmp_path):
    reader = CountingReader(random_params(CONFIG))
    hf.save(tmp_path / "x", CONFIG, reader, dtype="float32")
    assert reader.most == 1


def test_a_folder_in_use_is_kept(tmp_path):
    write_folder(tmp_path / "x")
    before = (tmp_path / "x" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"output folder is not empty .* add --overwrite"):
        hf.save(tmp_path / "x", CONFIG, random_params(CONFIG, 1))
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == before
    hf.save(tmp_path / "x", CONFIG, random_params(CONFIG, 1), overwrite=True)
    assert (tmp_path / "x" / "model.safetensors").read_bytes() != before
    assert files(tmp_path) == ["x"]


def test_overwrite_replaces_model_folders_only(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="does not look like an exported model - got"):
        hf.save(tmp_path, CONFIG, random_params(CONFIG), overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_output_that_is_a_file_or_lies_below_one(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"output folder is not empty - got a file"):
        hf.save(tmp_path / "file", CONFIG, random_params(CONFIG))
    with pytest.raises(
        CheckpointError, match="output folder cannot be written - got Not a directory"
    ):
        hf.save(tmp_path / "file" / "x", CONFIG, random_params(CONFIG))


def test_too_little_room_is_told_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(save_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match="output folder is too small - got 1,000 bytes free"):
        write_folder(tmp_path / "x")
    assert files(tmp_path) == []


@pytest.mark.parametrize("where", ["write_shard", "_write_json"])
def test_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch, where):
    def full(path, *args):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save_module, where, full)
    with pytest.raises(CheckpointError, match="cannot be written - got No space left on device"):
        write_folder(tmp_path / "x")
    assert files(tmp_path) == []


def test_failed_overwrite_keeps_the_old_folder(tmp_path, monkeypatch):
    write_folder(tmp_path / "x")
    before = (tmp_path / "x" / "model.safetensors").read_bytes()

    def full(path, *args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save_module, "write_shard", full)
    with pytest.raises(CheckpointError, match="No space left"):
        hf.save(tmp_path / "x", CONFIG, random_params(CONFIG, 1), overwrite=True)
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == before


def test_killed_export_is_no_model_and_the_next_one_clears_it(tmp_path):
    partial = tmp_path / "x.partial"
    partial.mkdir()
    (partial / MARKER).touch()
    (partial / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        hf.load(partial)
    write_folder(tmp_path / "x")
    assert files(tmp_path) == ["x"]


def test_working_folder_of_somebody_else_is_kept(tmp_path):
    (tmp_path / "x.partial").mkdir()
    with pytest.raises(CheckpointError, match="working folder is taken"):
        write_folder(tmp_path / "x")
    assert files(tmp_path) == ["x.partial"]


def test_weights_that_do_not_fit(tmp_path):
    params = random_params(CONFIG)
    del params["lm_head"]
    with pytest.raises(CheckpointError, match=r"do not fit .* missing \['lm_head'\]"):
        hf.save(tmp_path / "x", CONFIG, params)
    params = random_params(CONFIG)
    params["layers"]["mlp"]["up"] = np.zeros((3, 16, 24), np.float32)
    with pytest.raises(
        CheckpointError, match=r"does not fit .* got \(3, 16, 24\) at layers/mlp/up"
    ):
        hf.save(tmp_path / "x", CONFIG, params)
    assert files(tmp_path) == []


class HugeTokenizer:
    vocab_size = 51
    path = "somewhere"

    def fitting(self, _):
        return self


def test_tokenizer_with_more_tokens_than_embeddings(tmp_path):
    with pytest.raises(CheckpointError, match="more tokens than the model - got 51 tokens for 50"):
        hf.save(tmp_path / "x", CONFIG, random_params(CONFIG), tokenizer=HugeTokenizer())


def test_llama_without_a_row_for_the_added_pad_is_exported_without_it(tmp_path, shared):
    config = dataclasses.replace(CONFIG, vocab_size=32_000)
    tokenizer = load_tokenizer(shared / "tokenizers" / "llama")
    hf.save(tmp_path / "x", config, random_params(config), tokenizer=tokenizer)
    assert load_tokenizer(tmp_path / "x").vocab_size == 32_000
    assert "<pad>" not in (tmp_path / "x" / "tokenizer_config.json").read_text()
