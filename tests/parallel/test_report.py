"""The report of what is split and what is not, with its reasons."""

import dataclasses
import re

import jax
import pytest

from tulu_jax.models import LlamaConfig
from tulu_jax.parallel import (
    MeshConfig,
    layout_for,
    make_mesh,
    report_summary,
    report_text,
    sharding_report,
)
from tulu_jax.parallel.rules import abstract_sharded_params

MODEL = LlamaConfig(64, 32, 48, 2, 4, 2, 8, 64, 1e-5)


def shares(model=MODEL, rules=None, **sizes):
    layout = layout_for(model, make_mesh(MeshConfig(**sizes)), rules=rules)
    return layout, sharding_report(model, layout)


@pytest.mark.parametrize(
    "sizes", [{"fsdp": 8}, {"fsdp": 2, "tensor": 4}, {"data": 2, "sequence": 2, "tensor": 2}]
)
def test_bytes_are_those_of_the_arrays(sizes):
    layout, found = shares(**sizes)
    leaves = jax.tree_util.tree_leaves_with_path(abstract_sharded_params(MODEL, layout))
    held = {
        "/".join(key.key for key in path): leaf.sharding.shard_shape(leaf.shape)
        for path, leaf in leaves
    }
    assert {share.name for share in found} == set(held)
    for share in found:
        local = 4
        for side in held[share.name]:
            local *= side
        assert share.bytes_per_device == local
    assert [x.bytes_per_device for x in found] == sorted(
        (x.bytes_per_device for x in found), reverse=True
    )


def reasons(found):
    return {share.name: share.reasons for share in found}


def test_reasons():
    told = reasons(shares(fsdp=2, tensor=4)[1])
    assert told["layers/attention/query"] == ()
    assert told["layers/attention/key"] == ("tensor=4: kv_heads 2 does not divide",)
    assert told["layers/mlp_norm/scale"] == ("tensor=4: none of its axes is laid over it",)
    odd = dataclasses.replace(MODEL, vocab_size=63, d_model=36)
    told = reasons(shares(odd, fsdp=2, tensor=4)[1])
    assert told["embedding"] == ("tensor=4: vocab 63 does not divide",)
    told = reasons(shares(rules={"mlp": ("fsdp", "tensor")}, fsdp=2, tensor=4)[1])
    assert told["layers/mlp/up"] == ("tensor=4: another of its axes has it",)


def test_copies_are_no_failure():
    assert all(not share.reasons for share in shares(data=4, fsdp=2)[1])


def test_full_report():
    text = report_text(shares(fsdp=2, tensor=4)[1])
    assert re.search(r"layers/mlp/up +\[2, 32\[fsdp\], 48\[tensor\]\] +12,288 +1,536\n", text)
    assert "[2, 32[fsdp], 2, 8]" in text and "tensor=4: kv_heads 2 does not divide\n" in text


def test_summary():
    lines = report_summary(shares(fsdp=2, tensor=4)[1])
    assert lines[0].startswith("Weights: ") and "a device (1/" in lines[0]
    assert any(
        line.startswith("  not split over tensor=4: kv_heads 2 does not divide: layers/attention/")
        for line in lines
    )
    assert len(report_summary(shares(fsdp=8)[1])) == 1
