"""Training adapters: same on any mesh, resumed bit for bit, and never beside another base."""

import dataclasses
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import optax
import pytest

from train.small import (
    MESHES,
    MODEL,
    assert_same_state,
    final_state,
    layout_on,
    metric_lines,
    plan_on,
    random_params,
    run,
    run_config,
    two_a_row,
)
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import save_params
from tulu_jax.checkpoint.fingerprint import Fingerprint, tree_fingerprints
from tulu_jax.checkpoint.manager import restore_params
from tulu_jax.data.to_device import put_batch
from tulu_jax.errors import CheckpointError, ConfigError
from tulu_jax.models import ComputeConfig
from tulu_jax.models.lora import LoraConfig, num_adapter_params
from tulu_jax.train.config import OptimizerConfig
from tulu_jax.train.metrics import train_flops
from tulu_jax.train.optimizer import make_optimizer

pytestmark = pytest.mark.slow

LORA = LoraConfig(rank=4, alpha=8, dropout=0.25, base_dtype="float32")
# Equality on meshes and in micro-batches is one of gradients up to their rounding. Weights say so
# after steps along the gradients; Adam's g / (|g| + eps) would make the rounding of a gradient next
# to 0, which the factors beside a B of zeros have, into a step of full length.
OPTIMIZER = optax.sgd(0.2)
BATCHES = [two_a_row(seed=i) for i in range(3)]


def run_steps(mesh, lora=LORA, compute=None, **options):
    layout = layout_on(mesh)
    options = {"compute": compute or ComputeConfig(), "seed": 5, **options}
    plan = plan_on(layout, OPTIMIZER, lora=lora, initial_checkpoint="base", **options)
    with layout.activate():
        base = jax.tree.map(jax.device_put, random_params(), layout.params(MODEL))
        state, traces = plan.start(), []
        step = plan.step(lambda: traces.append(1))
        before, losses = jax.device_get(base), []
        for batch in BATCHES:
            state, row = step(state, put_batch(batch, layout.rows), base)
            losses.append({name: float(value) for name, value in row.items()})
        assert len(traces) == 1
        jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(base))
        nll = float(plan.eval_step()(state.params, put_batch(BATCHES[0], layout.rows), base)[0])
        return losses, jax.device_get(state), nll


@pytest.fixture(scope="module")
def one_device():
    return run_steps(None)


def assert_close(left, right):
    assert left[0] == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in right[0]]
    for one, other in zip(jax.tree.leaves(left[1]), jax.tree.leaves(right[1]), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert left[2] == pytest.approx(right[2], rel=1e-5)


@pytest.mark.parametrize("name", ["fsdp", "mixed"])
def test_eight_devices_equal_one(one_device, name):
    assert_close(run_steps(MESHES[name]), one_device)


def test_recomputed_layers_drop_the_same_inputs(one_device):
    assert_close(run_steps(None, compute=ComputeConfig(remat="full")), one_device)


def test_the_steps_are_long_enough_to_tell(one_device):
    losses, state, _ = one_device
    assert losses[-1]["loss"] < losses[0]["loss"] - 0.01
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(state.params))


def test_only_adapters_are_in_the_state():
    optimizer = make_optimizer(OptimizerConfig(), 6)
    state = plan_on(layout_on(None), optimizer, lora=LORA, initial_checkpoint="base").state()
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert count == num_adapter_params(MODEL, LORA)
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * count


def test_without_dropout_micro_batches_equal_one_batch():
    still = dataclasses.replace(LORA, dropout=0.0)
    assert_close(run_steps(None, still, micro_batches=4), run_steps(None, still))


def test_flops_of_frozen_weights():
    given = {"tokens": 100.0, "loss_tokens": 10.0, "length": 32}
    full, adapters = train_flops(MODEL, **given), train_flops(MODEL, **given, adapter_params=7)
    frozen = (MODEL.num_matmul_params - MODEL.num_head_params) * 100 + MODEL.num_head_params * 10
    assert full - adapters == 2 * frozen - 6 * 7 * 100


def array_fingerprint(array):
    found = Fingerprint()
    found.add(array)
    return found.text


def test_example_of_the_fingerprint():
    bits = np.array([5, 7, 9], np.uint32).view(np.float32)
    assert array_fingerprint(bits) == f"float32:{21:08x}{71:08x}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fingerprints_agree_on_hosts_and_meshes(dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), random_params())
    wanted = {
        "/".join(key.key for key in path): array_fingerprint(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    for mesh in (None, MESHES["mixed"]):
        placed = jax.tree.map(jax.device_put, params, layout_on(mesh).params(MODEL))
        assert tree_fingerprints(placed) == wanted
    other = {"x": jax.device_put(np.roll(params["lm_head"], 1))}
    assert tree_fingerprints(other)["x"] != wanted["lm_head"]


def base_folder(path: Path, seed: int = 0) -> str:
    hf.save(path, MODEL, random_params(seed=seed))
    return str(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    config = run_config(
        folder / "run", lora=dataclasses.replace(LORA, base_dtype="bfloat16"), eval_period=5,
        initial_checkpoint=base_folder(folder / "base"), checkpoint_period=1,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        result, output = run(patch, config)
    return config, result, output


def test_a_run_says_what_it_trains(whole):
    _, result, output = whole
    assert result.finished
    assert f"LoRA: {num_adapter_params(MODEL, LORA):,} weights in adapters of rank 4" in output
    assert "6 x adapter weights x tokens" in output and "Starting from fresh adapters" in output
    losses = [x["heldout"]["tulu_small"] for x in metric_lines(whole[0]) if "heldout" in x]
    assert losses[-1] < losses[0]


def copy_of(config, folder, step):
    shutil.copytree(config.model_dir, folder, ignore=shutil.ignore_patterns("tensorboard"))
    for child in (folder / "checkpoints").iterdir():
        if child.name.isdecimal() and int(child.name) > step:
            shutil.rmtree(child)
    shutil.copytree(config.data.data_dir, folder.parent / "store", dirs_exist_ok=True)
    return dataclasses.replace(config, model_dir=str(folder))


def test_resumed_run_is_bit_equal(whole, tmp_path, monkeypatch):
    config = copy_of(whole[0], tmp_path / "run", step=4)
    result, output = run(monkeypatch, config)
    assert "Resuming from step 4" in output and result.finished
    assert_same_state(final_state(config, 10), final_state(whole[0], 10))
    assert metric_lines(config) == metric_lines(whole[0])


def test_resumed_on_another_mesh(whole, tmp_path, monkeypatch):
    config = copy_of(whole[0], tmp_path / "run", step=8)
    config = dataclasses.replace(config, mesh=MESHES["mixed"])
    run(monkeypatch, config, devices=None)
    left, right = ([x["loss"] for x in metric_lines(c) if "loss" in x] for c in (config, whole[0]))
    np.testing.assert_allclose(left, right, rtol=1e-4)


@pytest.mark.parametrize("change", ["base", "rank", "none"])
def test_another_base_or_adapter_is_refused(whole, tmp_path, monkeypatch, change):
    config = copy_of(whole[0], tmp_path / "run", step=2)
    if change == "base":
        other = base_folder(tmp_path / "other", seed=1)
        config = dataclasses.replace(config, initial_checkpoint=other)
    elif change == "rank":
        config = dataclasses.replace(config, lora=dataclasses.replace(config.lora, rank=5))
    else:
        config = dataclasses.replace(config, lora=None)
    with pytest.raises(CheckpointError, match="run with another adapter or base"):
        run(monkeypatch, config)


def test_adapters_are_no_model_to_start_from(whole, tmp_path, monkeypatch):
    config = run_config(tmp_path / "run", initial_checkpoint=whole[0].model_dir, model=MODEL)
    with pytest.raises(CheckpointError, match=r"holds adapters, not a model's weights .*--merge"):
        run(monkeypatch, config)


def test_a_base_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match="adapters have no weights to stand beside"):
        run_config(tmp_path / "run", lora=LORA)


def test_a_base_read_from_a_run_is_rounded_as_on_a_host(tmp_path):
    """So that the fingerprints of training and of merging agree."""
    params = random_params()
    save_params(tmp_path / "run", params, {"model": {}})
    restored = restore_params(tmp_path / "run", MODEL, layout_on(None), dtype="bfloat16")
    half = jax.tree.map(lambda x: jax.device_put(x.astype(ml_dtypes.bfloat16)), params)
    wanted = tree_fingerprints(half)
    assert tree_fingerprints(restored) == wanted
