"""The packing probe passes on a right model and refuses ways of getting packing wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

from train.small import MESHES, MODEL, layout_on
from tulu_jax.errors import GuardError
from tulu_jax.models import ComputeConfig, layers
from tulu_jax.ops import attention
from tulu_jax.ops.attention.kernels import AttentionKernel
from tulu_jax.train import probe
from tulu_jax.train.probe import probe_packing

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mesh", [None, "mixed"])
def test_passes_in_float32(mesh):
    layout = layout_on(MESHES.get(mesh))
    with layout.activate():
        assert probe_packing(MODEL, layout, compute=ComputeConfig()) < 1e-5


def test_passes_in_bfloat16_with_remat():
    layout = layout_on(None)
    with layout.activate():
        difference = probe_packing(
            MODEL, layout, compute=ComputeConfig(dtype="bfloat16", remat="full", unroll_layers=2)
        )
    assert difference < probe.ROUNDED / 2


def refused(dtype="float32"):
    layout = layout_on(None)
    with layout.activate(), pytest.raises(GuardError) as error:
        probe_packing(MODEL, layout, compute=ComputeConfig(dtype=dtype))
    return str(error.value)


def test_a_gradient_that_is_all_rounding_is_measured_by_the_others():
    """As of the bias that OPT's keys have: the gradient is 0, what is left of it is noise."""
    apart = {"key_bias": np.array([1e-6, -2e-6]), "up": np.array([0.1, 0.3])}
    packed = {"key_bias": np.array([-1e-6, 1e-6]), "up": np.array([0.1, 0.3 + 3e-8])}
    assert probe._relative(packed, apart) == pytest.approx(3e-6 / (probe.NOISE * 0.3))
    leaky = {**apart, "key_bias": np.array([0.01, 0.02])}
    assert probe._relative(leaky, apart) > probe.ROUNDED
    small = {**apart, "up": np.array([1e-4, 3e-4])}  # others are measured by themselves
    assert probe._relative({**small, "up": small["up"] * 1.01}, small) == pytest.approx(0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_refuses_attention_that_ignores_segments(monkeypatch, dtype):
    attend = layers.attend

    def leaky(query, key, value, segments, key_segments, *rest, **options):
        return attend(
            query,
            key,
            value,
            jnp.ones_like(segments),
            jnp.ones_like(key_segments),
            *rest,
            **options,
        )

    monkeypatch.setattr(layers, "attend", leaky)
    message = refused(dtype)
    assert "packed conversations do not train as they would apart: states differ" in message
    assert "got relative difference" in message and "PACKING='padded'" in message


def test_refuses_positions_that_depend_on_the_row(monkeypatch):
    """Rotary positions are relative: an equal shift of a whole conversation changes nothing, so
    what must be refused is a wrong angle, as when slots of the row scale it."""
    put = probe._put

    def stretched(batch, row, start, tokens, segment):
        put(batch, row, start, tokens, segment)
        place = (row, slice(start, start + len(tokens)))
        batch["positions"][place] *= 1 + start

    monkeypatch.setattr(probe, "_put", stretched)
    assert "states differ" in refused()


def test_refuses_a_flash_kernel_that_is_not_attention(monkeypatch):
    """As on a TPU, with a kernel that forgets to look at what came before."""
    careless = AttentionKernel("splash", lambda q, k, v, s: q)
    monkeypatch.setitem(attention.KERNELS, "splash", careless)
    monkeypatch.setattr(probe, "attention_kernel", lambda *_: attention.Choice("splash", ""))
    monkeypatch.setattr(probe, "FLASH_ROW", 16)
    message = refused()
    assert message.startswith("attention kernel splash is wrong: states differ - got relative")
    assert message.endswith(
        "expected at most 0.0001 - set another ATTENTION (`dense` runs anywhere)"
    )


def test_refuses_nan(monkeypatch):
    attend = layers.attend
    monkeypatch.setattr(layers, "attend", lambda *a, **k: attend(*a, **k) * jnp.nan)
    assert "relative difference nan" in refused()
