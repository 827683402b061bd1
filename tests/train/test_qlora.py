"""Adapters beside weights of 4 and 8 bits: gradients, memory, meshes, and the merged model."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from whole import forward

from train.small import (
    MESHES,
    MODEL,
    layout_on,
    plan_on,
    random_params,
    run,
    run_config,
    two_a_row,
)
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader
from tulu_jax.checkpoint.merged import open_weights
from tulu_jax.data.to_device import put_batch
from tulu_jax.models.lora import LoraConfig, adapt, quantize_base
from tulu_jax.ops import QuantizedWeight

pytest.importorskip("qwix")

LORA = LoraConfig(rank=4, alpha=8, dropout=0.0, base_dtype="nf4")


def base_on(layout, lora=LORA):
    params = jax.tree.map(lambda x: x.astype("bfloat16"), random_params())
    return quantize_base(MODEL, lora, jax.tree.map(jax.device_put, params, layout.params(MODEL)))


def two_steps(mesh):
    layout, sgd = layout_on(mesh), optax.sgd(0.2)
    plan = plan_on(layout, sgd, lora=LORA, initial_checkpoint="base", seed=5)
    with layout.activate():
        base, state, step, losses = base_on(layout), plan.start(), plan.step(), []
        for seed in range(2):
            state, row = step(state, put_batch(two_a_row(seed=seed), layout.rows), base)
            losses.append(float(row["loss"]))
        return losses, jax.device_get(state.params), base


@pytest.mark.slow
def test_eight_devices_equal_one():
    losses, adapters, base = two_steps(MESHES["mixed"])
    wanted, whole, _ = two_steps(None)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), adapters, whole)
    values = base["layers"]["mlp"]["up"].values
    assert len({str(shard.index) for shard in values.addressable_shards}) == 4
    scale = base["layers"]["attention"]["query"].scale
    assert tuple(scale.sharding.spec) == (None, None, "tensor")


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4), ("int8", 8)])
def test_the_base_takes_less_memory(kind, bits):
    base = base_on(layout_on(None), dataclasses.replace(LORA, base_dtype=kind))
    small = [
        leaf
        for leaf in jax.tree.leaves(base, is_leaf=lambda x: isinstance(x, QuantizedWeight))
        if isinstance(leaf, QuantizedWeight)
    ]
    assert len(small) == 7
    for leaf in small:
        # Arrays of 4 bits are packed on GPUs and TPUs; on CPUs each number has a byte.
        assert jax.dtypes.itemsize_bits(leaf.values.dtype) == bits
        assert leaf.values.on_device_size_in_bytes() <= leaf.values.size
        assert leaf.scale.size * 32 <= leaf.values.size * 2


@pytest.mark.slow
def test_a_run_and_its_merged_export(tmp_path, monkeypatch):
    hf.save(tmp_path / "base", MODEL, random_params())
    config = run_config(
        tmp_path / "run", lora=LORA, initial_checkpoint=str(tmp_path / "base"), epochs=1
    )
    result, output = run(monkeypatch, config)
    assert result.finished and "frozen, nf4" in output
    reader = open_weights(tmp_path / "run")
    hf.save(tmp_path / "merged", MODEL, reader)
    _, merged = hf.load(tmp_path / "merged")
    adapters = CheckpointReader(tmp_path / "run").params()
    tokens = np.arange(3, 35).reshape(2, 16)
    beside = forward(MODEL, adapt(MODEL, LORA, base_on(layout_on(None)), adapters), tokens)
    np.testing.assert_allclose(forward(MODEL, merged, tokens), beside, atol=1e-4)
