import dataclasses
import errno
import importlib
import json
import shutil
import threading
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

from tulu_jax.chat import load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.checksums import file_checksum, verify_checksums
from tulu_jax.checkpoint.hf.save import MARKER
from tulu_jax.checkpoint.lazy import num_threads
from tulu_jax.checkpoint.reader import TreeReader
from tulu_jax.errors import CheckpointError

from .small import CONFIG, random_params, read_tensors, write_folder

save_module = importlib.import_module("tulu_jax.checkpoint.hf.save")
"""The module, which the function of the same name hides."""


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_and_checksums(tmp_path):
    saved = hf.save(tmp_path / "a" / "x", CONFIG, random_params(CONFIG))
    assert files(tmp_path / "a") == ["x"]
    weights = ["config.json", "generation_config.json", "model.safetensors"]
    assert files(saved.folder) == ["checksums.json", *weights]
    for name, checksum in saved.checksums.items():
        assert file_checksum(saved.folder / name) == checksum
    assert sorted(saved.checksums) == weights
    assert verify_checksums(saved.folder) == 3
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


def test_progress_ends_at_the_whole(tmp_path):
    seen = []
    write_folder(tmp_path / "x", on_progress=lambda *report: seen.append(report))
    assert seen[-1][1] == seen[-1][2] == 4 * CONFIG.num_params
    assert seen[0][0] == "model.embed_tokens.weight"


class CountingReader(TreeReader):
    """Knows how many bytes of what it handed out are alive at most."""

    def __init__(self, params):
        super().__init__(params)
        self.alive = []
        self.most = 0
        self.lock = threading.Lock()

    def read(self, path):
        return self.counted(super().read(path))

    def read_part(self, path, start, stop):
        return self.counted(super().read_part(path, start, stop))

    def counted(self, array):
        array = array.copy()
        with self.lock:
            self.alive = [ref for ref in self.alive if ref() is not None]
            self.alive.append(weakref.ref(array))
            self.most = max(self.most, sum(ref().nbytes for ref in self.alive if ref() is not None))
        return array


def test_a_few_layers_are_held_at_a_time(tmp_path):
    config = dataclasses.replace(CONFIG, num_layers=40, d_ff=240)
    reader = CountingReader(random_params(config))
    hf.save(tmp_path / "x", config, reader, dtype="float32")
    layer = 4 * config.d_model * config.d_ff
    # read ahead, and in pieces on the way to the file
    assert reader.most <= 2 * (num_threads() + 1) * layer, "[L, ...] would be 40 layers"


class Killed(BaseException):
    """Stands in for a signal that ends the process: nothing is cleaned up."""


class Source(TreeReader):
    identity = "one checkpoint"


def test_a_killed_export_goes_on_with_its_whole_files(tmp_path, monkeypatch):
    params = random_params(CONFIG)
    whole = hf.save(tmp_path / "whole", CONFIG, params, max_shard_bytes=4000)
    assert len(list(whole.folder.glob("*.safetensors"))) > 3
    real, calls = save_module.write_shard, []

    def dies(path, *args):
        calls.append(path.name)
        if len(calls) == 3:
            path.write_bytes(b"half")
            raise Killed
        return real(path, *args)

    monkeypatch.setattr(save_module, "write_shard", dies)
    with pytest.raises(Killed):
        hf.save(tmp_path / "x", CONFIG, Source(params), max_shard_bytes=4000)
    assert not (tmp_path / "x").exists()
    spoilt = tmp_path / "x.partial" / calls[1]
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"?")
    saved = hf.save(tmp_path / "x", CONFIG, Source(params), max_shard_bytes=4000)
    assert saved.kept == (calls[0],), "the third was not whole, the second has changed since"
    assert calls.count(calls[0]) == 1
    assert saved.checksums == whole.checksums
    for name in saved.checksums:
        assert (saved.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert files(tmp_path) == ["whole", "x"]


def test_files_of_another_job_are_not_kept(tmp_path, monkeypatch):
    def dies(path, *args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(save_module, "write_json", dies)
        hf.save(tmp_path / "x", CONFIG, Source(random_params(CONFIG)))
    saved = hf.save(tmp_path / "x", CONFIG, Source(random_params(CONFIG)), dtype="bfloat16")
    assert saved.kept == ()
    assert hf.load(tmp_path / "x", dtype=None)[1]["lm_head"].dtype == jnp.bfloat16


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
    with pytest.raises(CheckpointError, match=r"output is a file, not a folder - at"):
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


@pytest.mark.parametrize("where", ["write_shard", "write_json"])
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
