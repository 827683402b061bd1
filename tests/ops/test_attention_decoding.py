"""The kernels of decoding: which is chosen, what the probe refuses, and the one for TPU."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from tulu_jax.ops.attention import choice, decoding, paged
from tulu_jax.ops.attention.cached import BLOCK, LayerCache, row_by_row
from tulu_jax.ops.attention.choice import Choice
from tulu_jax.ops.attention.decoding import Heads, choose_decode_kernel, probe, probed

HEADS = Heads(4, 2, 128)


@pytest.mark.parametrize(
    ("platform", "heads", "dtype", "name", "reason"),
    [
        ("cpu", HEADS, "bfloat16", "rows", "each row its own blocks"),
        ("gpu", HEADS, "bfloat16", "dense", "on gpu, all rows at once"),
        ("tpu", HEADS, "bfloat16", "paged", "the paged kernel for TPU"),
        ("tpu", Heads(52, 52, 128), "bfloat16", "paged", "the paged kernel for TPU"),
        ("tpu", HEADS, "float32", "dense", "the paged kernel would round float32 to bfloat16"),
        ("tpu", Heads(4, 4, 64), "bfloat16", "dense", "does not take heads of 64 channels"),
    ],
)
def test_the_kernel_is_that_of_the_devices(monkeypatch, platform, heads, dtype, name, reason):
    monkeypatch.setattr(decoding, "platform_of", lambda: platform)
    found = choose_decode_kernel(heads, dtype)
    assert found.name == name and reason in found.reason


def test_key_heads_that_do_not_divide_take_no_pages(monkeypatch):
    monkeypatch.setattr(decoding, "platform_of", lambda: "tpu")
    monkeypatch.setattr(decoding, "mesh_in_force", lambda: SimpleNamespace(shape={"tensor": 4}))
    found = choose_decode_kernel(HEADS, "bfloat16")
    assert found == ("dense", "2 key heads do not divide over tensor=4")


def off_by(size):
    return lambda *args: row_by_row(*args) + size


def test_a_kernel_that_is_off_is_not_taken(monkeypatch):
    """The first block of each row is left out: what a wrong page table would do."""
    wanted = Choice("paged", "the paged kernel for TPU")
    monkeypatch.setitem(decoding.DECODE_KERNELS, "paged", off_by(0.001))
    assert probed(wanted, HEADS, "float32") == wanted
    monkeypatch.setitem(decoding.DECODE_KERNELS, "paged", off_by(0.5))
    found = probed(wanted, HEADS, "float32")
    assert found.name == "dense" and found.reason == "the paged kernel is 0.5 off here"
    monkeypatch.setitem(decoding.DECODE_KERNELS, "paged", off_by(np.nan))
    assert probed(wanted, HEADS, "float32").name == "dense"


def test_a_kernel_that_does_not_run_is_not_taken(monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\nmore")

    monkeypatch.setitem(decoding.DECODE_KERNELS, "paged", refuse)
    found = probed(Choice("paged", ""), HEADS, "bfloat16")
    assert found == ("dense", "the paged kernel does not run here: INTERNAL: Mosaic failed")


def test_rows_at_once_stand_the_probe():
    assert probe("dense", Heads(4, 2, 8), "float32") < 1e-5
    choice = Choice("dense", "whatever")
    assert probed(choice, HEADS, "bfloat16") is choice


@pytest.mark.parametrize("group", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_pages_in_the_interpreter(monkeypatch, group):
    """As rows one by one, and bit for bit whatever the other rows and what follows hold.

    For groups of eight queries the kernel lays them out in another way.
    """
    monkeypatch.setattr(paged, "LARGEST_PAGE", BLOCK)
    rng = np.random.default_rng(0)
    shape = (2, 2, 2 * BLOCK, 128)
    cache = LayerCache(*(jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for _ in range(2)))
    query = jnp.asarray(rng.normal(size=(2, 2 * group, 128)), jnp.bfloat16)
    with pltpu.force_tpu_interpret_mode():
        run = jax.jit(paged.paged_rows)
        first = run(query, cache, jnp.array([BLOCK + 3, 5]), jnp.array([True, False]))
        # One at a time: two interpreters can wait for each other for ever.
        jax.block_until_ready(first)
        other = LayerCache(*(one.at[0, :, BLOCK + 4 :].add(9.0) for one in cache))
        jax.block_until_ready(other)
        second = run(query, other, jnp.array([BLOCK + 3, 2 * BLOCK - 1]), jnp.array([True, True]))
        jax.block_until_ready(second)
    exact = LayerCache(*(one.astype(jnp.float32) for one in other))
    slots, alive = jnp.array([BLOCK + 3, 2 * BLOCK - 1]), jnp.array([True, True])
    expected = row_by_row(query.astype(jnp.float32), exact, slots, alive)
    np.testing.assert_allclose(np.asarray(second, np.float32), expected, atol=decoding.ROUNDED)
    np.testing.assert_array_equal(np.asarray(first[0]), np.asarray(second[0]))
    assert not first[1].any() and second[1].any()


def test_two_cores_share_the_rows_where_a_device_has_two(monkeypatch):
    asked = {}

    def attention(query, *_, **options):
        asked.update(options)
        return query

    monkeypatch.setattr(paged, "paged_attention", attention)
    cache = LayerCache(*(jnp.zeros((1, 2, BLOCK, 128), jnp.bfloat16) for _ in range(2)))
    arguments = (jnp.zeros((1, 2, 128), jnp.bfloat16), cache, jnp.array([3]), jnp.array([True]))
    for kind, mode in (("TPU v4", "batch"), ("TPU v5 lite", None), ("TPU v6 lite", None)):
        monkeypatch.setattr(paged, "device_kind", lambda kind=kind: kind)
        paged.paged_rows(*arguments)
        assert asked["megacore_mode"] == mode


def test_the_kind_of_the_devices_at_hand():
    assert choice.device_kind() == jax.devices()[0].device_kind
