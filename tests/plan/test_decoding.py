"""Generation planned: the engine's programs compiled, their memory, the bounds on speed."""

import dataclasses
import functools
import importlib.util
import json

import jax
import pytest

from tests.plan.small import bigger
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError
from tulu_jax.generate.sizes import cache_length, slot_bytes, weight_bytes
from tulu_jax.models import NeoxConfig, OptConfig
from tulu_jax.plan import CHIPS, TooLargeError, find_topology
from tulu_jax.plan.decode_report import bounds, bounds_of
from tulu_jax.plan.decoding import (
    compile_decode,
    compile_engine,
    compile_read,
    most_slots,
    plan_engine,
)

LLAMA = bigger(num_layers=1)
OPT = OptConfig(vocab_size=64, d_model=16, d_ff=32, num_layers=1, num_heads=2, max_length=64,
                word_dim=8)  # fmt: skip
NEOX = NeoxConfig(64, 16, 32, 1, 2, 64, 1e-5, 0.25)


@pytest.fixture(scope="module")
def described():
    """A v4 of 4 chips, played by CPUs, whose memory ends at 4 MB."""
    chip = dataclasses.replace(CHIPS["v4"], usable_bytes=4e6)
    return dataclasses.replace(find_topology("cpu:4"), chip=chip, sides=(2, 2, 1))


@pytest.fixture(scope="module")
def compiled(described):
    """An engine of 4 slots, compiled once."""

    @functools.cache
    def find(config, tensor):
        engine = plan_engine(config, described, tensor=tensor, dtype="float32")
        return compile_engine(engine, 4)

    return find


@pytest.mark.parametrize(("config", "tensor"), [(LLAMA, 1), (LLAMA, 2), (OPT, 2), (NEOX, 1)])
def test_every_family_compiles_and_holds_what_the_shapes_say(compiled, config, tensor):
    planned = compiled(config, tensor)
    engine = planned.engine
    held = engine.weight_bytes + 4 * engine.slot_bytes
    small = 100_000  # stops, biases, tokens
    assert held <= planned.decode.arguments <= held + small
    assert planned.decode.donated >= 4 * engine.slot_bytes
    assert engine.kernel.name == "rows"
    assert bool(planned.decode.traffic.collectives) == (tensor > 1)


def test_bytes_of_a_device_are_its_share(described):
    whole, half = (plan_engine(LLAMA, described, tensor=t, dtype="float32") for t in (1, 2))
    assert whole.weight_bytes == weight_bytes(LLAMA, "float32")
    assert half.slot_bytes == whole.slot_bytes / 2
    assert whole.slot_bytes == slot_bytes(LLAMA, cache_length(64, "cpu"), "float32")
    assert whole.weight_bytes / 2 < half.weight_bytes < whole.weight_bytes * 0.55  # norms are whole
    table = 512 * 64 * 4
    assert whole.weight_bytes - whole.read_bytes == table


def test_eight_bits_take_a_byte_each(described):
    pytest.importorskip("qwix")
    rounded = plan_engine(LLAMA, described, dtype="float32", int8=True)
    scales = 4 * (64 + 2 * 32 + 64 + 2 * 128 + 64)
    assert rounded.weight_bytes == weight_bytes(LLAMA, "float32", int8=True) + scales
    assert compile_decode(rounded, 2).arguments >= rounded.weight_bytes


def test_as_many_slots_as_fit(described, monkeypatch):
    engine = plan_engine(LLAMA, described, dtype="float32")
    first = most_slots(engine)
    assert first * engine.slot_bytes <= 0.97 * 4e6 - engine.weight_bytes
    tried = []

    def refuse(engine, slots):
        tried.append(slots)
        if slots > first - 3:
            error = TooLargeError("decode does not fit")
            error.needed = 4e6 + engine.slot_bytes * 1.5
            raise error
        return "decoded"

    monkeypatch.setattr("tulu_jax.plan.decoding.compile_decode", refuse)
    monkeypatch.setattr("tulu_jax.plan.decoding.compile_read", lambda engine, slots: "read")
    assert compile_engine(engine).slots == first - 4
    assert tried == [first, first - 2, first - 4]


def test_more_than_fits_is_refused(described):
    engine = plan_engine(LLAMA, described, dtype="float32")

    def refuse(*_):
        raise TooLargeError("decode does not fit")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tulu_jax.plan.decoding.compile_decode", refuse)
        with pytest.raises(TooLargeError, match="no number of slots that fits was found - got 4"):
            compile_engine(engine)


def test_bounds_by_hand(compiled):
    planned = compiled(LLAMA, 2)
    engine = planned.engine
    found = bounds(planned)
    read = engine.read_bytes + 4 * 32 * engine.token_bytes
    assert found.memory == pytest.approx(4 * 1.228e12 / read)
    attention = 4 * 1 * 4 * 16 * 32
    flops = 2 * LLAMA.num_matmul_params + attention
    assert found.compute == pytest.approx(2 * 275e12 / flops)
    sent = sum(one.sent_bytes for one in planned.decode.traffic.collectives)
    assert found.network == pytest.approx(4 * 2 * 4.5e10 / sent)
    assert found.decode == min(found.memory, found.compute, found.network)
    assert found.prefill_compute > found.compute
    assert bounds_of(plan_engine(LLAMA, find_topology("cpu:1")), 1) is None


@pytest.mark.parametrize(
    ("config", "tensor", "message"),
    [
        (LLAMA, 3, "devices cannot be shared out so - got --tensor=3 of 4 devices"),
        (bigger(num_heads=6, num_kv_heads=2), 4, "does not divide the model - got tensor=4, num_h"),
    ],
)
def test_devices_that_do_not_divide(described, config, tensor, message):
    with pytest.raises(ConfigError, match=message):
        plan_engine(config, described, tensor=tensor)


def test_no_number_of_slots_without_known_memory():
    engine = plan_engine(LLAMA, find_topology("cpu:1"))
    with pytest.raises(ConfigError, match="memory of the devices is not known, and so not how"):
        compile_engine(engine)


def test_the_command_plans_generation(tmp_path, capsys):
    kept = tmp_path / "plan.json"
    arguments = ["plan", "--decode", "--gin_file=models/llama_tiny.gin", "--topology=cpu:4",
                 "--tensor=2", "--slots=3", "--length=100", f"--json={kept}",
                 "--gin.LlamaConfig.num_layers=1"]  # fmt: skip
    assert main(arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "2 replicas of 2 devices, each 3 slots of 100 tokens" in text
    assert "Attention in decoding: rows" in text and "cache of 3 slots" in text
    assert "No bound on speed" in text
    plan = json.loads(kept.read_text())
    assert (plan["tensor"], plan["replicas"], plan["slots"]) == (2, 2, 3)
    assert plan["decode"]["arguments"] > plan["weight_bytes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tensor=2"], "--tensor does nothing here - expected it with --decode"),
        (["--decode", "--search"], "--search does nothing here - expected it without --decode"),
        (["--decode", "--gin.MODEL=None"], "there is no model to plan for - got MODEL=None"),
    ],
)
def test_mistakes_are_told(arguments, message, capsys):
    assert main(["plan", "--gin_file=models/llama_tiny.gin", "--topology=cpu:4", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU compiler, is not installed: pip install 'tulu-jax[plan]'",
)
@pytest.mark.slow
@pytest.mark.parametrize("heads", [4, 26])
def test_a_tiny_model_decodes_by_pages_on_v5e(heads):
    """26 heads, of LLaMA-30B on two chips, are among those that other kernels refuse."""
    model = bigger(d_model=256, num_heads=heads, num_kv_heads=heads, head_dim=128, num_layers=1,
                   max_length=2048)  # fmt: skip
    engine = plan_engine(model, find_topology("v5e:2x2"), tensor=2)
    assert engine.kernel.name == "paged"
    decode = compile_decode(engine, 8)
    held = engine.weight_bytes + 8 * engine.slot_bytes
    assert decode.arguments == pytest.approx(held, rel=0.1)
    assert decode.donated >= 8 * engine.slot_bytes
    assert decode.temporaries < 0.1 * 8 * engine.slot_bytes  # The cache is not copied.
    found = bounds_of(engine, 8, decode.traffic)
    assert found.memory > 0 and found.network > 0
    if heads == 4:  # the other program has no kernel of its own
        assert compile_read(engine, 8).arguments == pytest.approx(held, rel=0.1)
    assert jax.devices()[0].platform == "cpu"
