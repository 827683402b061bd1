"""Collectives read from programs, by hand and as compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tulu_jax.plan.hlo import Collective, read_traffic

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%all-reduce-scatter.1 (input: f32[64,8]) -> f32[16,8] {
  %input = f32[64,8]{1,0} parameter(0)
  %all-reduce.9 = f32[64,8]{1,0:T(8,128)} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %at = s32[] constant(0)
  ROOT %slice = f32[16,8]{1,0} dynamic-slice(%all-reduce.9, %at, %at), dynamic_slice_sizes={16,8}
}

%until (carry: (s32[], bf16[16,8])) -> pred[] {
  %carry = (s32[], bf16[16,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %layers = s32[] constant(32)
  ROOT %lt = pred[] compare(%i, %layers), direction=LT
}

%layer (carry.1: (s32[], bf16[16,8])) -> (s32[], bf16[16,8]) {
  %carry.1 = (s32[], bf16[16,8]{1,0}) parameter(0)
  %shard = bf16[16,8]{1,0} get-tuple-element(%carry.1), index=1
  %all-gather.1 = bf16[64,8]{1,0:T(8,128)(2,1)S(3)} all-gather(%shard), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}
  %kernel = f32[16,8]{1,0} custom-call(%shard), custom_call_target="tpu_custom_call", metadata={
"blocks": "{512, 512
}}, op_name="splash"}
  %scattered = f32[16,8]{1,0} fusion(%all-gather.1), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %out = (s32[], bf16[16,8]{1,0}) tuple(%i, %shard)
}

%open_until (c: (s32[], s32[])) -> pred[] {
  %c = (s32[], s32[]) parameter(0)
  %at.2 = s32[] get-tuple-element(%c), index=0
  %end = s32[] get-tuple-element(%c), index=1
  ROOT %lt.2 = pred[] compare(%at.2, %end), direction=LT
}

%chunk (c.1: (s32[], s32[])) -> (s32[], s32[]) {
  %c.1 = (s32[], s32[]) parameter(0)
  %max = f32[16]{0} all-reduce(%c.1), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  ROOT %again = (s32[], s32[]) tuple(%c.1, %c.1)
}

ENTRY %main (p: f32[]) -> f32[] {
  %p = f32[] parameter(0)
  %while.1 = (s32[], bf16[16,8]{1,0}) while(%p), condition=%until, body=%layer
  %while.2 = (s32[], s32[]) while(%p), condition=%open_until, body=%chunk
  %start = (f32[4]{0}, f32[32]{0}) all-gather-start(%p), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %done = f32[32]{0} all-gather-done(%start)
  %alone = f32[4]{0} all-reduce(%p), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  ROOT %moved = f32[4]{0} collective-permute(%p), source_target_pairs={{0,4},{4,0}}
}
"""  # noqa: E501


def by_kind(traffic):
    return {(one.kind, one.group_size): one for one in traffic.collectives}


def test_a_program_written_by_hand():
    found = read_traffic(PROGRAM, num_devices=8, open_loop_turns=3)
    assert found.open_loops == 1
    assert by_kind(found) == {
        ("all-gather", 4): Collective("all-gather", 4, False, 32, 32 * 1024, 32 * 768),
        ("all-gather", 8): Collective("all-gather", 8, False, 1, 128, 112),
        ("all-reduce", 2): Collective("all-reduce", 2, False, 3, 3 * 64, 3 * 64),
        ("collective-permute", 2): Collective("collective-permute", 2, False, 1, 16, 16),
        ("reduce-scatter", 4): Collective("reduce-scatter", 4, False, 32, 32 * 2048, 32 * 1536),
    }
    assert found.sent_bytes(crosses_slices=True) == 0


def test_what_leaves_a_slice_is_told_apart():
    found = read_traffic(PROGRAM, num_devices=8, slices=[0] * 4 + [1] * 4)
    crossing = {one.kind for one in found.collectives if one.crosses_slices}
    assert crossing == {"all-gather", "all-reduce", "collective-permute"}
    assert found.sent_bytes(crosses_slices=True) == 112 + 64 + 16
    inside = 32 * 768 + 32 * 1536
    assert found.sent_bytes(crosses_slices=False) == inside


SEND = """\
  %send.1 = ({shape}, u32[], token[]) send(%p, %token), channel_id=3, is_host_transfer=true, frontend_attributes={{_xla_megascale_target="{{1,2}}x{{0:3}}",_xla_megascale_transfer_type="{kind}"}}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("kind", "sent"), [("ALL_REDUCE", 4096), ("ALL_GATHER", 4096), ("ONE_TO_ONE", 4096)]
)
def test_a_tpu_host_sends_to_other_slices(kind, sent):
    line = SEND.format(shape="f32[1,8,128]{2,1,0:T(8,128)}", kind=kind)
    text = PROGRAM.replace("  %done =", f"{line}  %done =")
    slices = [0] * 4 + [1] * 4
    more = read_traffic(text, num_devices=8, slices=slices).sent_bytes(crosses_slices=True)
    less = read_traffic(PROGRAM, num_devices=8, slices=slices).sent_bytes(crosses_slices=True)
    assert more - less == sent


def test_a_call_on_another_core_is_followed():
    """As TPU7x gathers, on its sparse cores."""
    body = PROGRAM[PROGRAM.index("%layer (") : PROGRAM.index("%open_until")]
    gather = next(line for line in body.splitlines() if "%all-gather.1 =" in line)
    called = f"%called (shard: bf16[16,8]) -> bf16[64,8] {{\n{gather}\n}}, "
    start = "  %all-gather.1 = ((bf16[16,8]), bf16[64,8]) call-start(%shard), to_apply=%called"
    text = PROGRAM.replace(gather, start)
    text = text.replace("%layer (", f'{called}execution_thread="sparsecore"\n\n%layer (')
    found, wanted = (by_kind(read_traffic(one, num_devices=8)) for one in (text, PROGRAM))
    assert found == wanted


def test_known_trip_counts_win():
    text = PROGRAM.replace(
        "body=%layer", 'body=%layer, backend_config={"known_trip_count":{"n":"5"}}'
    )
    assert by_kind(read_traffic(text, num_devices=8))["all-gather", 4].count == 5


def test_an_unrolled_loop_turns_less_often():
    """Its counter moves by 2 a turn, in one step or two."""
    add = "  %two = s32[] constant(2)\n  %next = s32[] add(%i.1, %two)\n"
    twice = (
        "  %one = s32[] constant(1)\n  %a = s32[] add(%i.1, %one)\n  %next = s32[] add(%a, %one)\n"
    )
    for lines in (add, twice):
        text = PROGRAM.replace("  ROOT %out = ", f"{lines}  ROOT %out = ")
        text = text.replace("tuple(%i, %shard)", "tuple(%next, %shard)")
        assert by_kind(read_traffic(text, num_devices=8))["all-gather", 4].count == 16


@pytest.mark.parametrize(
    ("text", "bytes_each"), [("bf16[64,8]", 2), ("f8e4m3fn[64,8]", 1), ("s4[64,8]", 0.5)]
)
def test_widths(text, bytes_each):
    found = read_traffic(PROGRAM.replace("bf16[64,8]", text), num_devices=8)
    assert by_kind(found)["all-gather", 4].payload_bytes == 32 * 64 * 8 * bytes_each


def test_a_compiled_loop_sends_what_its_shapes_say():
    """Ten layers of 64 x 64 float32, split over 8 devices, gathered one by one."""
    mesh = Mesh(np.asarray(jax.devices()[:8]), ("x",))
    split = NamedSharding(mesh, PartitionSpec(None, "x", None))
    rows = NamedSharding(mesh, PartitionSpec("x", None))

    def run(x, layers):
        def layer(x, weight):
            whole = jax.lax.with_sharding_constraint(weight, NamedSharding(mesh, PartitionSpec()))
            return jnp.tanh(x @ whole), None

        return jax.lax.scan(layer, x, layers)[0]

    jitted = jax.jit(run, in_shardings=(rows, split), out_shardings=rows)
    shapes = (jax.ShapeDtypeStruct((16, 64), jnp.float32), jax.ShapeDtypeStruct((10, 64, 64), "f4"))
    text = jitted.lower(*shapes).compile().as_text()
    found = by_kind(read_traffic(text, num_devices=8))
    gathered = 10 * 64 * 64 * 4
    assert found["all-gather", 8].payload_bytes == gathered
    assert found["all-gather", 8].sent_bytes == gathered * 7 / 8
    assert list(found) == [("all-gather", 8)]
