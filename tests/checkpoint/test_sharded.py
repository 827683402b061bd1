"""Weights read straight into shards, on eight devices that share one CPU."""

import dataclasses
import io
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console
from train.small import plan_on

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader, save_params
from tulu_jax.checkpoint.fingerprint import tree_fingerprints
from tulu_jax.checkpoint.hf.load import HfFolder
from tulu_jax.checkpoint.manager import Checkpoints, restore_params
from tulu_jax.checkpoint.sharded import read_sharded
from tulu_jax.errors import CheckpointError
from tulu_jax.models import config_to_dict
from tulu_jax.models.lora import LoraConfig
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.optimizer import make_optimizer
from tulu_jax.train.run import Run
from tulu_jax.train.setup import read_frozen

from .hf.small import CONFIG, random_params

MESHES = {
    "fsdp": MeshConfig(fsdp=8),
    "tensor": MeshConfig(fsdp=2, tensor=4),
    "mixed": MeshConfig(data=2, fsdp=2, tensor=2),
    "copies": MeshConfig(data=8, fsdp=1),
}


class Counting:
    """Notes which slices were asked for and how many bytes they hold."""

    def __init__(self, inner):
        self.inner, self.asked, self.far = inner, [], inner.far

    def shape(self, path):
        return self.inner.shape(path)

    def read_slice(self, path, index):
        result = self.inner.read_slice(path, index)
        self.asked.append((path, index, result.nbytes))
        return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "hf"
    hf.save(path, CONFIG, random_params(CONFIG), dtype="bfloat16", max_shard_bytes=4000)
    return path


@pytest.mark.parametrize("source", ["folder", "import", "run"])
def test_weights_that_are_no_numbers_start_no_run(tmp_path, source):
    params = random_params(CONFIG)
    params["layers"]["mlp"]["up"][1, 2, 3] = np.nan
    layout = layout_for(CONFIG, make_mesh(MESHES["fsdp"]))
    with pytest.raises(CheckpointError, match=r"weights are not finite numbers - got 1 NaN"):
        if source == "folder":
            hf.save(tmp_path / "hf", CONFIG, params)
            read_sharded(hf.open_folder(tmp_path / "hf"), layout.params(CONFIG))
            return
        if source == "import":
            save_params(tmp_path, params, {"model": config_to_dict(CONFIG)})
        else:
            state = plan_on(layout, make_optimizer(OptimizerConfig(), 10), CONFIG).start(
                jax.device_put(params, layout.params(CONFIG))
            )
            with Checkpoints(tmp_path, keep=1) as checkpoints:
                checkpoints.save(state, {"model": config_to_dict(CONFIG)})
        restore_params(tmp_path, CONFIG, layout)


@pytest.mark.parametrize("mesh", MESHES)
def test_only_each_shards_own_bytes_are_read_and_the_state_equals_an_imports(
    folder, tmp_path, mesh
):
    layout = layout_for(CONFIG, make_mesh(MESHES[mesh]))
    reader = Counting(hf.open_folder(folder))
    direct = read_sharded(reader, layout.params(CONFIG))

    unique = {}
    for path in hf.open_folder(folder).paths():
        leaf = direct
        for key in path:
            leaf = leaf[key]
        shards = {str(shard.index): shard.data.nbytes for shard in leaf.addressable_shards}
        unique[path] = (len(shards), sum(shards.values()))
    for path, (count, num_bytes) in unique.items():
        own = [nbytes for asked, _, nbytes in reader.asked if asked == path]
        assert (len(own), sum(own)) == (count, num_bytes), path

    meta = {"model": config_to_dict(CONFIG)}
    save_params(tmp_path / "run", hf.open_folder(folder).lazy_params(), meta)
    imported = restore_params(tmp_path / "run", CONFIG, layout)
    for left, right in zip(jax.tree.leaves(direct), jax.tree.leaves(imported), strict=True):
        assert left.sharding.is_equivalent_to(right.sharding, left.ndim)
        assert left.dtype == right.dtype
        assert np.array_equal(left, right)


@pytest.mark.parametrize("source", ["folder", "import"])
@pytest.mark.parametrize("mesh", ["fsdp", "mixed"])
def test_the_frozen_base_of_adapters_is_read_in_slices(folder, tmp_path, monkeypatch, source, mesh):
    """As on several hosts: what one device holds is read for it, once, and nothing besides."""
    kind, base = HfFolder, folder
    if source == "import":
        kind, base = CheckpointReader, tmp_path / "run"
        meta = {"model": config_to_dict(CONFIG)}
        save_params(base, hf.open_folder(folder).lazy_params(), meta)
    asked: dict[tuple[str, ...], list[int]] = {}
    real = kind.read_slice

    def counted(self, path, index):
        result = real(self, path, index)
        asked.setdefault(path, []).append(result.size)
        return result

    def whole(self, path, *rows):
        raise AssertionError(f"{path} is read whole")

    monkeypatch.setattr(kind, "read_slice", counted)
    monkeypatch.setattr(kind, "read", whole)
    monkeypatch.setattr(kind, "read_part", whole)
    layout = layout_for(CONFIG, make_mesh(MESHES[mesh]))
    adapters = {"lora": LoraConfig(rank=2), "initial_checkpoint": str(base)}
    plan = plan_on(layout, None, CONFIG, **adapters)
    run = Run(plan.config, CONFIG, layout, None, 1, data=None, settings="", generation={})
    run, (weights,) = read_frozen(run, Console(file=io.StringIO()))
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        shards = {str(shard.index): shard.data.size for shard in leaf.addressable_shards}
        assert sorted(asked[tuple(key.key for key in path)]) == sorted(shards.values()), path
        assert leaf.dtype == "bfloat16"
    wanted = jax.tree.map(lambda x: x.astype("bfloat16"), random_params(CONFIG))
    assert run.frozen_weights == tree_fingerprints(jax.device_put(wanted))


def test_an_import_of_another_model_is_refused(folder, tmp_path):
    save_params(tmp_path / "run", hf.open_folder(folder).lazy_params(), {})
    other = dataclasses.replace(CONFIG, d_ff=CONFIG.d_ff + 8)
    with pytest.raises(CheckpointError, match="weights are not those of the model"):
        restore_params(tmp_path / "run", other, layout_for(other, make_mesh(MESHES["fsdp"])))


def test_a_slice_of_the_files_is_the_slice_of_the_weight(folder):
    opened = hf.open_folder(folder)
    for path in opened.paths():
        whole = opened.read(path)
        index = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in whole.shape)
        assert np.array_equal(opened.read_slice(path, index), whole[index]), path


@pytest.mark.parametrize("mesh", ["mixed", "fsdp"])
def test_checkpoint_of_a_sharded_run_is_exported_layer_by_layer(tmp_path, mesh):
    layout = layout_for(CONFIG, make_mesh(MESHES[mesh]))
    params = jax.device_put(random_params(CONFIG), layout.params(CONFIG))
    with layout.activate():
        state = plan_on(layout, make_optimizer(OptimizerConfig(), 10), CONFIG).start(params)
    with Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(state, {"model": config_to_dict(CONFIG)})
    reader = CheckpointReader(tmp_path / "run")
    assert reader.rows_at_once(("layers", "mlp", "up")) == 1
    hf.save(tmp_path / "x", CONFIG, reader)
    hf.save(tmp_path / "y", CONFIG, random_params(CONFIG))
    for name in ("model.safetensors", "config.json", "checksums.json"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


ALONE = """
import sys
import jax
from tulu_jax.cli.main import main
assert main(["export", "--model_dir", sys.argv[1], "--output", sys.argv[2],
             "--tokenizer", "none"]) == 0
assert jax.device_count() == 1
"""


def test_export_needs_none_of_the_devices_of_the_run(tmp_path):
    layout = layout_for(CONFIG, make_mesh(MESHES["mixed"]))
    params = jax.device_put(random_params(CONFIG), layout.params(CONFIG))
    with layout.activate():
        state = plan_on(layout, make_optimizer(OptimizerConfig(), 10), CONFIG).start(params)
    with Checkpoints(tmp_path / "run", keep=1) as checkpoints:
        checkpoints.save(state, {"model": config_to_dict(CONFIG)})
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ALONE, str(tmp_path / "run"), str(tmp_path / "x")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    hf.save(tmp_path / "y", CONFIG, random_params(CONFIG))
    name = "model.safetensors"
    assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
