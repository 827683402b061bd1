"""Training that starts from a Hugging Face folder, without `tulu import`."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import save_params
from tulu_jax.checkpoint.manager import saved_generation
from tulu_jax.errors import CheckpointError
from tulu_jax.models import config_to_dict

from .small import MESHES, MODEL, assert_same_state, final_state, random_params, run, run_config

COMMON = {"epochs": None, "train_steps": 2, "checkpoint_period": 2, "heldout_examples": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "hf"
    hf.save(
        path,
        MODEL,
        random_params(),
        dtype="bfloat16",
        max_shard_bytes=10_000,
        generation={"eos_token_id": [2, 5], "temperature": 0.6},
    )
    return path


GENERATION = {
    "bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": MODEL.pad_id, "temperature": 0.6,
}  # fmt: skip


def trained(monkeypatch, folder, **changes):
    config = run_config(folder, **COMMON | {"model": None, "mesh": MESHES["mixed"]} | changes)
    _, output = run(monkeypatch, config, devices=8)
    return final_state(config, 2), output


def test_the_state_is_that_of_import_then_train(monkeypatch, tmp_path, folder):
    """And what the folder's generation_config.json asks for stays with the run."""
    direct, output = trained(monkeypatch, tmp_path / "a", initial_checkpoint=str(folder))
    assert f"Starting from the weights of {folder}" in output
    assert saved_generation(tmp_path / "a") == GENERATION
    opened = hf.open_folder(folder)
    meta = {"model": config_to_dict(MODEL), "generation": opened.generation}
    save_params(tmp_path / "imported", opened.lazy_params(), meta)
    path = str(tmp_path / "imported")
    imported, _ = trained(monkeypatch, tmp_path / "b", initial_checkpoint=path)
    assert saved_generation(tmp_path / "b") == GENERATION
    assert_same_state(direct, imported)
    start = jax.tree.leaves(hf.load(folder)[1])
    assert any(not np.array_equal(a, b) for a, b in zip(start, direct.values(), strict=False))


def test_rows_are_added_for_a_model_with_more_tokens(monkeypatch, tmp_path, folder):
    larger = dataclasses.replace(MODEL, vocab_size=72, pad_id=71)  # Any id may pad.
    state, _ = trained(monkeypatch, tmp_path / "a", initial_checkpoint=str(folder), model=larger)
    assert state["['params']['embedding']"].shape == (72, 32)
    assert state["['params']['lm_head']"].shape == (32, 72)


@pytest.mark.parametrize("named", ["model", "nothing"])
def test_an_imported_model_is_no_run_to_go_on_with(monkeypatch, tmp_path, folder, named):
    opened, path = hf.open_folder(folder), tmp_path / "imported"
    source = {"format": "hf", "folder": "x"}
    meta = {"model": config_to_dict(MODEL), "step": 0, "source": source}
    save_params(path, opened.lazy_params(), meta)
    changes = {"initial_checkpoint": str(path), "model": None} if named == "nothing" else {}
    config = run_config(path, **COMMON, **changes)
    message = (
        r"MODEL_DIR is the folder of an imported model, .* - got a checkpoint made from hf, .*"
        r"set INITIAL_CHECKPOINT_PATH=\S+imported and another MODEL_DIR"
    )
    with pytest.raises(CheckpointError, match=message):
        run(monkeypatch, config)
    assert not (path / "settings.gin").exists()
    assert not Path(config.data.data_dir).exists(), "before any data are read"
