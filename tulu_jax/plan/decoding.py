"""Generation on hardware that need not be there: the engine's own programs, compiled for it."""

from __future__ import annotations

import dataclasses
import math
import time
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from tulu_jax.axes import TENSOR_AXIS
from tulu_jax.errors import ConfigError
from tulu_jax.generate.sizes import cache_length, check_length, piece_tokens, slot_bytes
from tulu_jax.generate.steps import cache_spec, compiled_steps, heads_of, init_layers
from tulu_jax.generate.weights import Weights, split_weights, stored_specs
from tulu_jax.generate.worker import idle_rows
from tulu_jax.models import ComputeConfig, ModelConfig, abstract_params
from tulu_jax.ops.attention import Choice
from tulu_jax.ops.attention.cached import BLOCK
from tulu_jax.ops.attention.decoding import choose_decode_kernel
from tulu_jax.parallel import Layout, MeshConfig, layout_for, make_mesh
from tulu_jax.plan.compiled import Compiled, TooLargeError, account, compile_lowered
from tulu_jax.plan.hlo import read_traffic
from tulu_jax.plan.topology import Topology

FULL_SHARE = 0.97
"""Of a device's memory; what is filled first with weights and slots, to see whether it compiles."""
TRIES = 4


@dataclasses.dataclass(frozen=True)
class PlannedEngine:
    """An engine on some devices of a topology: a replica; the others have replicas of their own."""

    model: ModelConfig
    topology: Topology
    layout: Layout
    """Of one replica."""
    length: int
    """Tokens of the longest prompt and answer."""
    compute: ComputeConfig
    int8: bool
    kernel: Choice
    """Of attention in decoding."""
    weights: Weights
    """Shapes, with their shardings."""

    @property
    def chips(self) -> int:
        """Devices of a replica."""
        return self.layout.mesh.shape[TENSOR_AXIS]

    @property
    def weight_bytes(self) -> float:
        """Bytes of the weights on one device."""
        return sum(_bytes_on_one(leaf) for leaf in jax.tree.leaves(_held(self)))

    @property
    def read_bytes(self) -> float:
        """Bytes of them that a step of decoding reads: of a table only a few rows are looked up."""
        if self.model.tie_embeddings:
            return self.weight_bytes
        return self.weight_bytes - _bytes_on_one(self.weights.outer["params"]["embedding"])

    @property
    def slot_bytes(self) -> float:
        """Bytes of a slot's cache on one device."""
        held = cache_length(self.length, self.layout.platform)
        return self.token_bytes * held

    @property
    def token_bytes(self) -> float:
        """Bytes of a token's keys and values on one device."""
        shards = self.chips if self.model.num_kv_heads % self.chips == 0 else 1
        return slot_bytes(self.model, 1, self.compute.dtype) / shards


@dataclasses.dataclass(frozen=True)
class Generation:
    """A planned engine with as many slots as fit, as compiled."""

    engine: PlannedEngine
    slots: int
    decode: Compiled
    """A step of decoding; of its loop over tokens one turn is counted."""
    prefill: Compiled
    """The reading of one piece of a prompt."""

    @property
    def peak(self) -> float:
        """Most bytes that either holds on a device."""
        return max(self.decode.peak, self.prefill.peak)


def plan_engine(
    model: ModelConfig,
    topology: Topology,
    *,
    tensor: int = 1,
    length: int | None = None,
    dtype: str = "bfloat16",
    int8: bool = False,
) -> PlannedEngine:
    """The engine of `model` on the first `tensor` devices of `topology`.

    Args:
      model: its shapes.
      topology: the devices.
      tensor: devices that share a copy of the weights.
      length: tokens of the longest prompt and answer; the model's own by default.
      dtype: of weights, cache and computation.
      int8: whether the matrices of layers are kept in 8 bits.

    Raises:
      ConfigError: the devices do not divide so, or not the model; or it cannot be so long.
    """
    count = len(topology.devices)
    if count % tensor:
        raise ConfigError(
            "devices cannot be shared out so",
            got=f"--tensor={tensor} of {count} devices of {topology.name}",
            expected="a number that divides them",
        )
    length = length or model.max_length
    check_length(model, length)
    mesh = make_mesh(MeshConfig(fsdp=1, tensor=tensor, slice=1), topology.devices[:tensor])
    layout, compute = layout_for(model, mesh), ComputeConfig(dtype=dtype)
    # Shapes before the mesh is in force: under one that is only described nothing may be computed.
    split = partial(split_weights, model, dtype=dtype, int8=int8)
    shapes = jax.eval_shape(lambda params: split(params), abstract_params(model))
    with layout.activate():
        specs = stored_specs(model, shapes)
        kernel = choose_decode_kernel(heads_of(model), dtype)
    weights = jax.tree.map(partial(_placed, layout), shapes, specs)
    return PlannedEngine(model, topology, layout, length, compute, int8, kernel, weights)


def compile_engine(engine: PlannedEngine, slots: int | None = None) -> Generation:
    """The engine with `slots`, or as many as fit.

    Raises:
      ConfigError: nothing is known of the devices, and so not how many fit.
      TooLargeError: not even one fits, or not `slots`.
    """
    tried = slots or most_slots(engine)
    for _ in range(TRIES):
        try:
            decode, read = compile_decode(engine, tried), compile_read(engine, tried)
            return Generation(engine, tried, decode, read)
        except TooLargeError as error:
            if tried == 1 or slots is not None:
                raise
            over = (error.needed or 0) - _usable(engine)
            tried = max(1, tried - max(1, math.ceil(over / engine.slot_bytes)))
    raise TooLargeError(
        "no number of slots that fits was found", got=f"{TRIES} tries, the last {tried}",
        do="give --slots",
    )  # fmt: skip


def most_slots(engine: PlannedEngine) -> int:
    """Slots that fit beside the weights by their shapes, at least 1."""
    left = FULL_SHARE * _usable(engine) - engine.weight_bytes
    return max(1, int(left // engine.slot_bytes))


def _usable(engine: PlannedEngine) -> float:
    chip = engine.topology.chip
    if chip is None:
        raise ConfigError(
            "memory of the devices is not known, and so not how many slots fit",
            got=engine.topology.name,
            expected="TPUs, or a GPU of tulu_jax/plan/hardware.py",
            do="give --slots",
        )
    return chip.usable_bytes


def compile_decode(engine: PlannedEngine, slots: int) -> Compiled:
    """The program that decodes.

    Raises:
      TooLargeError: it does not fit.
    """
    held = cache_length(engine.length, engine.layout.platform)
    idle = jax.tree.map(
        partial(_whole, engine), idle_rows(slots, held - 1, engine.model.vocab_size)
    )
    alike = np.zeros((slots, held // BLOCK), np.int32)
    return _compile(
        engine, "decode", slots, *idle, _whole(engine, alike), _whole(engine, np.int32(1))
    )


def compile_read(engine: PlannedEngine, slots: int) -> Compiled:
    """The program that reads a whole piece of a prompt.

    Raises:
      TooLargeError: it does not fit.
    """
    number = _whole(engine, np.int32(0))
    piece = np.zeros((1, piece_tokens(engine.layout.platform)), np.int32)
    return _compile(engine, "read", slots, _whole(engine, piece), number, number)


def _compile(engine: PlannedEngine, name: str, slots: int, *args: Any) -> Compiled:
    start = time.perf_counter()
    model, compute, layout = engine.model, engine.compute, engine.layout
    held = cache_length(engine.length, layout.platform)
    shapes = jax.eval_shape(lambda: init_layers(model, slots, held, compute.dtype))
    step = getattr(compiled_steps(model, compute, engine.kernel.name, layout.platform), name)
    with layout.activate():
        spec = cache_spec()
        layers = jax.tree.map(lambda leaf: _placed(layout, leaf, spec), shapes)
        lowered = step.lower(engine.weights, layers, *args)
        program = compile_lowered(
            lowered, engine.topology, layout, what=f"{name} with {slots} slots",
            do="take fewer --slots, a shorter --length, more --tensor or --quantize int8",
        )  # fmt: skip
    traffic = read_traffic(program.as_text() or "", num_devices=engine.chips)
    return account(program, layout, traffic, time.perf_counter() - start)


def _placed(layout: Layout, shape: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
    where = NamedSharding(layout.mesh, spec)
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where)


def _whole(engine: PlannedEngine, array: Any) -> jax.ShapeDtypeStruct:
    return _placed(engine.layout, array, PartitionSpec())


def _held(engine: PlannedEngine) -> Any:
    """All weights once: a tied head is the embedding, one that is not lies in `outer` too."""
    return engine.weights.outer, engine.weights.layers


def _bytes_on_one(leaf: Any) -> float:
    return float(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize)
