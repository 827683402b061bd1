"""Every kernel against the dense reference, and the choice of the kernel."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from tulu_jax.axes import MESH_AXES
from tulu_jax.errors import ConfigError
from tulu_jax.ops.attention import attend, choice, choose_kernel, platform_of, splash
from tulu_jax.ops.attention.gpu import cudnn_attention
from tulu_jax.ops.attention.kernels import KERNELS, register
from tulu_jax.ops.attention.sharded import pad_to, repeats

ROWS, LENGTH, HEADS, KV_HEADS, WIDTH = 2, 200, 4, 2, 24


def inputs(rows=ROWS, length=LENGTH, heads=HEADS, kv_heads=KV_HEADS, width=WIDTH):
    """Query, key, value, segments (three conversations, then padding) and an upstream gradient."""
    rng = np.random.default_rng(0)
    query, pull = jnp.float32(rng.normal(size=(2, rows, length, heads, width)))
    key, value = jnp.float32(rng.normal(size=(2, rows, length, kv_heads, width)))
    segments = np.sort(rng.integers(1, 4, (rows, length)), axis=1)
    segments[:, -length // 5 :] = 0
    # What padding gives is never read, and kernels differ there.
    return query, key, value, jnp.asarray(segments), pull * (segments > 0)[..., None, None]


def value_and_gradients(kernel, query, key, value, segments, pull):
    def loss(query, key, value):
        mixed = kernel(query, key, value, segments)
        return jnp.sum(mixed * pull), mixed * (pull != 0)

    run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, mixed), gradients = jax.jit(run)(query, key, value)
    return mixed, *gradients


def kernel_named(name):
    return lambda query, key, value, segments: attend(
        query, key, value, segments, segments, kernel=name
    )


@pytest.fixture(scope="module")
def reference():
    return value_and_gradients(kernel_named("dense"), *inputs())


HERE = {
    name: kernel_named(name)
    for name, kernel in KERNELS.items()
    if name != "dense" and not kernel.platform and not kernel.package
}
"""Kernels that run on any device: in the table is in the test."""


@pytest.mark.parametrize(
    "kernel",
    [*HERE.values(), partial(splash.splash_attention, interpret=True)],
    ids=[*HERE, "splash"],
)
def test_equals_dense_forward_and_backward(kernel, reference, monkeypatch):
    """Two blocks a row (200 tokens, padded to 256), grouped heads, a width of no round size."""
    monkeypatch.setattr(splash, "LARGEST_BLOCK", 128)
    for got, expected in zip(value_and_gradients(kernel, *inputs()), reference, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_cudnn_lowers_with_causality_and_segments(monkeypatch):
    """Without a GPU: what would be run there is made, and holds mask and causality."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    query, key, value, segments, _ = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype if x.dtype == "int32" else "bfloat16"),
        inputs(length=130, width=20),
    )
    run = jax.grad(
        lambda *args: jnp.sum(cudnn_attention(*args).astype(jnp.float32)), argnums=(0, 1, 2)
    )
    text = jax.jit(run).trace(query, key, value, segments).lower(lowering_platforms=("cuda",))
    text = text.as_text()
    # "Bias": the mask is an operand of both calls.
    assert "@__cudnn$fmhaScaleBiasSoftmax(" in text
    assert "@__cudnn$fmhaScaleBiasSoftmaxBackward(" in text
    assert text.count(r"\22mask_type\22: \22CAUSAL\22") == 2
    assert "tensor<2x1x130x130xbf16>" in text


def test_a_second_kernel_of_one_name():
    with pytest.raises(ValueError, match="attention kernel dense is registered already"):
        register(KERNELS["dense"])


def mesh_of(**sizes):
    shape = [sizes.get(axis, 1) for axis in MESH_AXES]
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


@pytest.mark.parametrize(
    "sizes",
    [
        {"fsdp": 2, "tensor": 4},  # key heads are repeated
        {"data": 2, "sequence": 2, "tensor": 2},  # positions are exchanged for heads
        {"sequence": 8},  # too few heads for that
    ],
    ids=str,
)
def test_sharded_equals_one_device(sizes):
    arrays = inputs(length=16, width=8)
    expected = value_and_gradients(kernel_named("dense"), *arrays)
    with jax.set_mesh(mesh_of(**sizes)):
        got = value_and_gradients(kernel_named("dense"), *arrays)
    for left, right in zip(got, expected, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_repeats_and_padding():
    assert [repeats(*case) for case in ((8, 4), (2, 4), (3, 2))] == [1, 2, 2]
    np.testing.assert_array_equal(pad_to(jnp.array([[1, 2, 3]]), 2, 1), [[1, 2, 3, 0]])


def devices_of(platform, kind):
    device = SimpleNamespace(platform=platform, device_kind=kind)
    return SimpleNamespace(empty=False, abstract_device=device)


TPU = devices_of("tpu", "TPU v5 lite")
NVIDIA = devices_of("gpu", "NVIDIA H100 80GB HBM3")
AMD = devices_of("gpu", "AMD Instinct MI300X")


@pytest.mark.parametrize(
    ("mesh", "dtype", "name", "reason"),
    [
        (TPU, "bfloat16", "splash", "the flash kernel for TPU"),
        (NVIDIA, "bfloat16", "cudnn", "the flash kernel for GPU"),
        (NVIDIA, "float32", "blockwise", "cuDNN's flash kernel does not take float32"),
        (AMD, "bfloat16", "blockwise", "the fastest on rocm"),
        (None, "float32", "blockwise", "the fastest on cpu"),
    ],
)
def test_auto_goes_by_the_devices(mesh, dtype, name, reason):
    assert choose_kernel("auto", dtype, mesh) == (name, reason)


def test_platform_of_a_mesh_is_that_of_its_devices():
    mesh = mesh_of(fsdp=2)
    assert platform_of(mesh) == platform_of(mesh.abstract_mesh) == "cpu"
    with jax.set_mesh(mesh):
        assert jax.jit(lambda: len(platform_of()))() == 3


def test_a_kernel_asked_for_is_taken():
    assert choose_kernel("dense", "float32", TPU) == ("dense", "as ATTENTION says, on tpu")


@pytest.mark.parametrize(
    ("name", "dtype", "mesh", "message"),
    [
        (
            "splash", "float32", None,
            "attention kernel cannot run on these devices - got ATTENTION='splash' on cpu - "
            "expected dense or blockwise",
        ),
        ("cudnn", "bfloat16", TPU, "on tpu - expected dense or blockwise or splash"),
        ("cudnn", "float32", NVIDIA, "got ATTENTION='cudnn' with DTYPE='float32' - expected bf"),
        ("tokamax", "bfloat16", NVIDIA, "is not installed - got ATTENTION='tokamax'"),
    ],
)  # fmt: skip
def test_a_kernel_that_cannot_run_is_refused(name, dtype, mesh, message, monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        choose_kernel(name, dtype, mesh)
