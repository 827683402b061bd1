"""The compiled step on virtual CPU devices: its account against the real one."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from tests.plan.small import MODEL, bigger, config
from tulu_jax.axes import BATCH_KEYS
from tulu_jax.cli.main import main
from tulu_jax.errors import ConfigError
from tulu_jax.models import ComputeConfig
from tulu_jax.models.lora import LoraConfig, quantize_base
from tulu_jax.parallel import MeshConfig
from tulu_jax.plan import (
    TooLargeError,
    Work,
    compile_step,
    compiled,
    find_topology,
    memory_budget,
    plan_run,
    roofline,
)
from tulu_jax.plan.report import search_table
from tulu_jax.plan.search import candidates, largest_batch, search
from tulu_jax.train.budget import activations, budget_text, number_bytes


@pytest.fixture(scope="module")
def cpus():
    return find_topology("cpu:8")


@pytest.fixture(scope="module")
def planned(cpus):
    return plan_run(config(), cpus)


@pytest.fixture(scope="module")
def step(planned):
    return compile_step(planned)


def bytes_on_first_device(tree):
    first = jax.devices()[0]
    shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == first]
    return sum(shard.data.nbytes for shard in shards)


def test_arguments_are_what_a_real_step_is_given(planned, step):
    state = planned.start()
    rows = np.ones((16, 64), np.int32)
    batch = jax.device_put(dict.fromkeys(BATCH_KEYS, rows), planned.layout.rows)
    assert step.arguments == bytes_on_first_device((state, batch))
    assert step.donated == bytes_on_first_device(state)
    budget = memory_budget(planned)
    assert budget.arguments == bytes_on_first_device(state)
    assert budget.weights == budget.gradients == bytes_on_first_device(state.params)
    with planned.layout.activate():
        real = planned.step().lower(state, batch).compile().memory_analysis()
    assert real.temp_size_in_bytes == step.temporaries
    assert step.peak == step.arguments + step.outputs + step.temporaries - step.donated


def test_the_step_gathers_weights_and_sums_over_the_mesh(planned, step):
    sizes = {(one.kind, one.group_size) for one in step.traffic.collectives}
    assert {("all-gather", 4), ("all-reduce", 2)} <= sizes
    gathered = sum(c.payload_bytes for c in step.traffic.collectives if c.kind == "all-gather")
    # Each layer's matrices, in float32, whole over fsdp and halved over tensor, at least once.
    assert gathered >= 3 * MODEL.num_layer_matmul_params * 4 / 2
    assert roofline(planned, step.traffic, Work(1, 1)) is None  # Nothing is known of CPUs.


def test_the_estimate_grows_as_it_should(cpus, planned):
    base = memory_budget(planned)
    twice = memory_budget(plan_run(config(batch_size=32), cpus))
    assert twice.kept == 2 * base.kept
    assert twice.arguments == base.arguments
    cut = memory_budget(plan_run(config(batch_size=32, micro_batches=2), cpus))
    assert (cut.kept, cut.gradients) == (base.kept, 2 * base.gradients)
    full = memory_budget(plan_run(config(compute=ComputeConfig(remat="full")), cpus))
    assert full.kept == 3 * (16 * 64 / 4) * 64 * 4  # Layers x positions x width x float32.
    adapters = LoraConfig(rank=2, targets=("all-linear",), dropout=0.0)
    lora = memory_budget(plan_run(config(lora=adapters), cpus))
    assert lora.weights < base.weights / 4 and lora.frozen == base.weights / 2  # bfloat16
    assert lora.optimizer < base.optimizer / 4


def test_of_a_layer_all_but_silu_is_kept(planned):
    made = activations(planned)
    assert made.layer - made.kept_within == planned.model.d_ff


def test_a_narrow_base_is_not_cast(cpus):
    compute = ComputeConfig(dtype="bfloat16")

    def copies(lora):
        return memory_budget(plan_run(config(compute=compute, lora=lora), cpus)).copies

    narrow, wide = (LoraConfig(rank=2, base_dtype=one) for one in ("bfloat16", "float32"))
    assert copies(wide) == copies(None) > copies(narrow) > 0  # All layers cast; only two gathered.


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_base_is_planned_as_it_lies(cpus, kind):
    pytest.importorskip("qwix")
    adapters = LoraConfig(rank=2, dropout=0.0, base_dtype=kind)
    run = plan_run(config(lora=adapters), cpus)
    whole = plan_run(config(lora=LoraConfig(rank=2)), cpus).frozen()[0]
    zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), whole)
    real = quantize_base(run.model, adapters, zeros)
    for planned, leaf in zip(*map(jax.tree.leaves, (run.frozen()[0], real)), strict=True):
        assert (planned.shape, planned.dtype) == (leaf.shape, leaf.dtype)
        assert planned.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
    assert memory_budget(run).frozen == bytes_on_first_device(real)
    values = run.frozen()[0]["layers"]["mlp"]["up"].values
    # CPUs give each number of 4 bits a byte; the others two numbers.
    assert number_bytes(values.dtype, "cpu") == 1
    assert number_bytes(values.dtype, "tpu") == (0.5 if kind == "nf4" else 1)


def test_the_estimate_is_near_the_compilers(cpus):
    """A model whose state outweighs what the compiler adds."""
    model = bigger(d_model=256, d_ff=512, num_heads=8, num_kv_heads=8, head_dim=32, num_layers=2)
    run = plan_run(config(model=model, compute=ComputeConfig(remat="full"), batch_size=8), cpus)
    assert memory_budget(run).total == pytest.approx(compile_step(run).peak, rel=0.35)


def test_kept_activations_are_split_as_their_length_is(cpus):
    """Over fsdp 4 x tensor 2 by Megatron's rule: half of what is kept of each layer's input."""
    compute = ComputeConfig(remat="full")
    rules = {"activation_length": ("sequence", "tensor")}
    whole = plan_run(config(compute=compute), cpus)
    mesh = MeshConfig(fsdp=4, tensor=2, axis_rules=rules)
    split = plan_run(config(compute=compute, mesh=mesh), cpus)
    assert memory_budget(split).kept == memory_budget(whole).kept / 2 > 0
    assert compile_step(split).temporaries < compile_step(whole).temporaries


def test_budget_text_of_an_unknown_device(planned):
    text = budget_text(memory_budget(planned), None)
    assert text.startswith("Memory a device, estimated: 0.0 GiB (weights 0.0")
    assert text.endswith(")")


def test_a_mesh_that_does_not_divide_is_refused(cpus):
    with pytest.raises(ConfigError, match="cannot be split over the devices"):
        plan_run(config(batch_size=6), cpus)
    with pytest.raises(ConfigError, match="mesh does not use all devices"):
        plan_run(config(mesh=MeshConfig(fsdp=3)), cpus)


def fake_compile(limit, peak_of):
    def compile_(run):
        peak = peak_of(run)
        if peak > limit:
            raise TooLargeError("the step does not fit")
        return compiled.Compiled(1.0, 1.0, 1.0, 1.0, peak, compiled.Traffic(()), 0.0)

    return compile_


@pytest.fixture
def tpus(cpus):
    """Devices that are virtual CPUs, but of whose kind all is known."""
    from tulu_jax.plan import CHIPS

    chip = dataclasses.replace(CHIPS["v4"], usable_bytes=3e6)
    return dataclasses.replace(cpus, chip=chip, sides=(2, 2, 2))


def test_the_largest_batch_is_found_and_was_compiled(tpus, monkeypatch):
    run = plan_run(config(), tpus)
    tried = []
    limit = 1000 * 13
    fake = fake_compile(limit, lambda run: 1000 * run.config.data.batch_size / 4)
    monkeypatch.setattr("tulu_jax.plan.search.compile_step", fake)
    rows, peak = largest_batch(run, compile_at_most=12, done=lambda n, p: tried.append((n, p)))
    assert (rows, peak) == (52, 13_000)
    assert (56, None) in tried


def test_no_largest_batch_without_known_memory(planned):
    with pytest.raises(ConfigError, match="memory and speed of the devices are not known"):
        largest_batch(planned)


def test_search_takes_the_fastest_that_fits(tpus, monkeypatch):
    found = candidates(config(), tpus)
    assert [one.rank for one in found] == sorted(one.rank for one in found)
    assert {dict(one.run.layout.mesh.shape)["tensor"] for one in found} >= {1, 2}
    refused = found[0].run.layout.mesh.shape
    fake = fake_compile(1, lambda run: 2 * (run.layout.mesh.shape == refused))
    monkeypatch.setattr("tulu_jax.plan.search.compile_step", fake)
    seen = []
    tried = search(found, compile_at_most=50, done=seen.append)
    assert len(seen) == len(tried) and tried[0].failure is None
    assert any(one.failure for one in tried)
    assert tried[0].seconds == min(one.seconds for one in tried if not one.failure)
    assert "MESH_TENSOR" in tried[0].settings


def test_search_prefers_layouts_with_room_to_spare(tpus, monkeypatch, capsys):
    """One that leaves under 5 % of 3 MB is recommended only if no other fits."""
    found = candidates(config(), tpus)
    fullest = found[0].run.layout.mesh.shape

    def peak(run):
        return 2.9e6 if run.layout.mesh.shape == fullest else 1e6

    monkeypatch.setattr("tulu_jax.plan.search.compile_step", fake_compile(3e6, peak))
    tried = search(found, compile_at_most=50)
    assert tried[0].run.layout.mesh.shape != fullest and not tried[0].is_tight
    assert [one.is_tight for one in tried] == sorted(one.is_tight for one in tried)
    tight = next(one for one in tried if one.is_tight)
    assert tight.failure is None and tight.seconds <= tried[0].seconds
    Console(width=100).print(search_table(tried))
    assert "tight" in capsys.readouterr().out
    monkeypatch.setattr("tulu_jax.plan.search.compile_step", fake_compile(3e6, lambda run: 2.9e6))
    assert search(found, compile_at_most=2)[0].is_tight


def test_a_tight_recommendation_is_said(tpus, monkeypatch, capsys):
    tight = fake_compile(3e9, lambda run: 2.9e9)
    tpus = dataclasses.replace(tpus, chip=dataclasses.replace(tpus.chip, usable_bytes=3e9))
    monkeypatch.setattr("tulu_jax.plan.search.compile_step", tight)
    monkeypatch.setattr("tulu_jax.plan.topology.find_topology", lambda *args, **options: tpus)
    arguments = ["plan", "--gin_file=runs/demo.gin", "--topology=cpu:8", "--search"]
    assert main([*arguments, "--compile_at_most=1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Recommended: --gin.MESH_DATA=" in text
    assert "It leaves less than 5% of the memory free: a longer search" in text


def test_search_compiles_nothing_larger_than_what_did_not_fit(tpus, monkeypatch):
    found = candidates(config(), tpus)
    small = min(one.estimated_bytes for one in found)
    fits = {id(one.run) for one in found if one.estimated_bytes == small}
    fake = fake_compile(1, lambda run: 2 * (id(run) not in fits))
    monkeypatch.setattr("tulu_jax.plan.search.compile_step", fake)
    tried = []
    assert search(found, compile_at_most=50, done=tried.append)[0].failure is None
    sizes = [one.estimated_bytes for one in tried]
    assert sizes == sorted(sizes, reverse=True) and len(tried) < len(found)


def test_search_refuses_what_cannot_fit(tpus):
    with pytest.raises(ConfigError, match="no layout fits"):
        candidates(config(model=bigger(vocab_size=512 * 1024)), tpus)


def test_the_command_plans_the_demo_on_virtual_devices(tmp_path, capsys):
    kept = tmp_path / "plan.json"
    arguments = ["plan", "--gin_file=runs/demo.gin", "--topology=cpu:8", f"--json={kept}",
                 "--gin.TASK_FEATURE_LENGTHS={'targets': 64}", "--gin.UNROLL_LAYERS=1",
                 "--gin.LlamaConfig.num_layers=1", "--gin.LlamaConfig.d_ff=64"]  # fmt: skip
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for part in ("8 devices (fsdp 8)", "estimated from shapes", "as compiled", "all-gather"):
        assert part in text
    plan = json.loads(kept.read_text())
    assert plan["mesh"]["fsdp"] == 8 and plan["batch_size"] == 16
    compiled_bytes = plan["compiled"]
    assert compiled_bytes["peak"] >= compiled_bytes["arguments"] > 0
    assert plan["compiled"]["traffic"]["collectives"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v9:2x2"], "topology is unknown - got 'v9:2x2'"),
        (["--topology=v4-7"], "no slice of this size - got v4-7 - expected v4-8, v4-16"),
        (["--topology=cpu:4096"], "too few virtual CPU devices"),
        (["--topology=cpu:8", "--num_slices=2"], "only TPUs come in slices"),
        (["--topology=cpu:8", "--estimate", "--search"], "--estimate compiles nothing"),
        (["--topology=cpu:8", "--search"], "memory and speed of the devices are not known"),
    ],
)
def test_mistakes_are_told(arguments, message, capsys):
    assert main(["plan", "--gin_file=runs/demo.gin", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--efficiency=2", "--num_slices=0"])
def test_numbers_out_of_range_are_told_of_their_flag(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--gin_file=runs/demo.gin", "--topology=cpu:8", flag])
    assert ended.value.code == 2
    assert f"argument {flag.split('=')[0]}: is out of range - got" in capsys.readouterr().err


def test_a_run_without_a_model_is_told_how_to_name_one(capsys):
    arguments = ["plan", "--gin_file=runs/alpaca_7b.gin", "--topology=cpu:8"]
    assert main(arguments) == 2
    assert "the run has no model to plan for" in capsys.readouterr().err


def test_rows_for_added_tokens_are_planned(tmp_path, capsys):
    kept = tmp_path / "plan.json"
    arguments = ["plan", "--gin_file=runs/demo.gin", "--topology=cpu:1", "--estimate",
                 f"--json={kept}", "--gin.CHAT_TEMPLATE=chatml"]  # fmt: skip
    assert main([*arguments, "--gin.ADD_TOKENS=template"]) == 0
    grown = json.loads(kept.read_text())["weights"]
    assert main(["plan", "--gin_file=runs/demo.gin", "--topology=cpu:1", "--estimate",
                 f"--json={kept}"]) == 0  # fmt: skip
    assert grown > json.loads(kept.read_text())["weights"]
    arguments[1] = "--gin_file=runs/alpaca_7b.gin"
    assert main([*arguments, "--gin_file=models/llama_7b.gin", "--gin.ADD_TOKENS=template"]) == 2
    assert "how many rows ADD_TOKENS adds depends on the tokenizer" in capsys.readouterr().err
