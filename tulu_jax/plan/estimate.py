"""What a step would send, from shapes alone: to compare many layouts before compiling a few."""

from __future__ import annotations

import jax.numpy as jnp

from tulu_jax.axes import SEQUENCE_AXIS, TENSOR_AXIS
from tulu_jax.plan.hlo import Collective, Traffic
from tulu_jax.plan.planned import PlannedRun
from tulu_jax.plan.roofline import passes
from tulu_jax.train.budget import FLOAT32


def estimate_traffic(run: PlannedRun) -> Traffic:
    """The collectives that the layout asks for.

    Weights are gathered in the compute dtype in every pass over a micro-batch, and their float32
    gradients scattered once; copies of the weights sum their gradients; each layer's two blocks
    sum their results over `tensor`, once in every pass.
    """
    config, model = run.config, run.model
    each = jnp.dtype(config.compute.dtype).itemsize
    turns = passes(run)
    micro, tensor = config.micro_batches, run.mesh_size(TENSOR_AXIS)
    shards = run.mesh_size("fsdp") * run.mesh_size(SEQUENCE_AXIS)
    matrices = model.num_matmul_params / tensor
    trained = run.trained.matmul_params / tensor
    states = run.positions * model.d_model * each * 2 * model.num_layers
    found = [
        _collective("all-gather", shards, turns * micro * matrices * each),
        _collective("reduce-scatter", shards, micro * trained * FLOAT32),
        _collective("all-reduce", run.mesh_size("data"), micro * trained / shards * FLOAT32),
        _collective("all-reduce", tensor, turns * micro * states),
        _collective("all-reduce", run.mesh_size("slice"), trained / shards * FLOAT32, crosses=True),
    ]
    return Traffic(tuple(one for one in found if one.group_size > 1 and one.payload_bytes))


def _collective(kind: str, size: int, payload: float, *, crosses: bool = False) -> Collective:
    times = 2 if kind == "all-reduce" else 1
    return Collective(kind, size, crosses, 0, payload, times * payload * (size - 1) / size)
